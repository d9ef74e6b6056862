// What happened to a guest, as a timeline.

import { path, request } from "./api.js";
import { el } from "./dom.js";
import { KIND_WORDS, bytes, kindWord, moment, setTime, several } from "./words.js";

const PAGE = 30;
const LONGEST = 160;
const SHOWN = 8;

export class History {
  #asked = 0;
  #before = 0;
  #revisions = new Set();

  constructor() {
    this.kind = el("select", { "aria-label": "Kind of change" }, el("option", { value: "", textContent: "every kind" }),
      Object.entries(KIND_WORDS).map(([kind, textContent]) => el("option", { value: kind, textContent })));
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
  const when = el("time");
  setTime(when, Date.parse(time));
  const changes = el("ul", {}, differences.slice(0, SHOWN).map(change));
  const rest = differences.length + omitted - Math.min(differences.length, SHOWN);
  if (first) changes.append(el("li", { className: "note", textContent: "the first that is kept" }));
  if (rest) changes.append(el("li", { className: "note", textContent: `and ${several(rest, "further change")}` }));
  return el("li", {}, el("p", {}, when, el("b", { textContent: kindWord(kind) }),
    el("span", { className: "note", textContent: `${host}, revision ${revision}` })), changes);
}

function change({ path: where, old, new: now }) {
  const [, name, key] = where.match(/([^.[\]]*)(?:\[([^\]]*)\])?$/s);
  const [before, after] = [old, now].map((value) => (value === undefined ? "" : shortened(told(value, name, key))));
  const what = el("code", { textContent: where || "all of it" });
  const details = (text) => (text ? `: ${text}` : "");
  if (old === undefined) return el("li", { className: "came" }, what, ` is new${details(after)}`);
  if (now === undefined) return el("li", { className: "went" }, what, ` is gone${details(before)}`);
  return el("li", { className: "changed" }, what, `: ${before} \u2192 ${after}`);
}

const shortened = (text) => (text.length > LONGEST ? `${text.slice(0, LONGEST)}\u2026` : text);

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;

/** A value as people read it: sizes and times by their names, objects without what `key` has said already. */
function told(value, name, key) {
  if (typeof value === "number" && /[bB]ytes$/.test(name)) return bytes(value);
  if (typeof value === "number" && name === "loginTime" && Math.abs(value) < 1e11) return moment(1000 * value);
  if (typeof value === "string") return TIME.test(value) && Date.parse(value) ? moment(Date.parse(value)) : value;
  if (value === null || typeof value !== "object" || Array.isArray(value)) return JSON.stringify(value) ?? "";
  const entries = Object.entries(value).filter(([, each]) => key === undefined || String(each) !== key);
  return entries.map(([each, of]) => `${each} ${told(of, each)}`).join(", ");
}
