// What happened to a guest, as a timeline.

import { path, request } from "./api.js";
import { el } from "./dom.js";
import { bytes, setTime, several } from "./words.js";

const PAGE = 30;
const LONGEST = 160;
const SHOWN = 8;

export class History {
  #asked = 0;
  #before = 0;
  #revisions = new Set();

  constructor() {
    this.kind = el("select", { "aria-label": "Kind of change" }, el("option", { value: "", textContent: "every kind" }),
      ["agent", "guestosinfo", "userlist", "filesystemlist", "interfaces"].map((kind) => el("option", { textContent: kind })));
    this.note = el("p", { className: "note" });
    this.list = el("ol", { className: "timeline" });
    this.more = el("button", { type: "button", textContent: "Older", hidden: true });
    this.element = el("section", {},
      el("div", { className: "top" }, el("h3", { textContent: "History" }), this.kind), this.note, this.list, this.more);
    this.kind.addEventListener("change", () => this.#start());
    this.more.addEventListener("click", () => this.#read(this.#before));
  }

  open(namespace, name) {
    Object.assign(this, { namespace, name });
    this.kind.value = "";
    this.#start();
  }

  #start() {
    this.#revisions.clear();
    this.list.replaceChildren();
    this.more.hidden = true;
    this.note.textContent = "Reading";
    this.#asked += 1;
    this.#read(0);
  }

  /** Look for what is new. */
  refresh() {
    this.#read(0);
  }

  async #read(before) {
    const asked = this.#asked;
    const query = new URLSearchParams({ limit: PAGE, ...(this.kind.value && { kind: this.kind.value }), ...(before && { before }) });
    try {
      const response = await request(`${path(this.namespace, this.name, "history")}?${query}`);
      const { items, metadata } = await response.json();
      if (asked !== this.#asked) return;
      const first = !this.#revisions.size;
      const fresh = items.filter(({ revision }) => !this.#revisions.has(revision));
      for (const { revision } of fresh) this.#revisions.add(revision);
      const entries = fresh.map(entry);
      if (before) this.list.append(...entries);
      else this.list.prepend(...entries);
      if (before || first) {
        this.#before = metadata.before ?? 0;
        this.more.hidden = !this.#before;
      }
      this.note.textContent = this.list.children.length ? "" : "Nothing is kept of it.";
    } catch (error) {
      if (asked === this.#asked) this.note.textContent = error.status ? error.message : "The API does not answer.";
    }
  }
}

function entry({ revision, time, kind, host, first, differences = [], omitted = 0 }) {
  const moment = el("time");
  setTime(moment, Date.parse(time));
  const changes = el("ul", {}, differences.slice(0, SHOWN).map(change));
  const rest = differences.length + omitted - Math.min(differences.length, SHOWN);
  if (first) changes.append(el("li", { className: "note", textContent: "the first that is kept" }));
  if (rest) changes.append(el("li", { className: "note", textContent: `and ${several(rest, "further change")}` }));
  return el("li", {}, el("p", {}, moment, el("b", { textContent: kind }),
    el("span", { className: "note", textContent: `${host}, revision ${revision}` })), changes);
}

function change({ path: where, old, new: now }) {
  const sized = /[bB]ytes$/.test(where);
  const [before, after] = [old, now].map((value) => el("span", { textContent: told(value, sized) }));
  const what = el("code", { textContent: where || "all of it" });
  if (old === undefined) return el("li", { className: "came" }, what, " is new: ", after);
  if (now === undefined) return el("li", { className: "went" }, what, " is gone: ", before);
  return el("li", { className: "changed" }, what, ": ", before, " \u2192 ", after);
}

function told(value, sized) {
  if (sized && typeof value === "number") return bytes(value);
  const text = typeof value === "string" ? value : JSON.stringify(value) ?? "";
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}\u2026` : text;
}
