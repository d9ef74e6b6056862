// One guest in depth: its facts, and what happened to it.

import { path, request } from "./api.js";
import { bar, el } from "./dom.js";
import { History } from "./history.js";
import { keyOf } from "./fleet.js";
import { AGENT_WORDS, bytes, kindWord, percent, setTime, several } from "./words.js";

/** Milliseconds between two looks at a guest that changes all the time. */
const PACE = 1000;

export class GuestView {
  key = "";
  #pending = 0;
  #asked = 0;

  constructor(element, { onClose }) {
    this.element = element;
    this.close = el("button", { type: "button", className: "close", textContent: "Close", "aria-keyshortcuts": "Escape" });
    this.close.addEventListener("click", onClose);
    this.title = el("h2", { id: "guest-name" });
    this.warning = el("p", { className: "warning", role: "status", hidden: true,
      textContent: "Nobody has told of this guest for some time: what is known may not be so any more." });
    this.facts = el("div", { className: "facts" });
    this.history = new History();
    element.append(el("div", { className: "top" }, this.title, this.close), this.warning, this.facts, this.history.element);
  }

  open(namespace, name) {
    const key = keyOf(namespace, name);
    if (this.key === key) return;
    Object.assign(this, { key, namespace, name });
    this.title.textContent = this.title.title = `${namespace}/${name}`;
    this.facts.replaceChildren(el("p", { className: "note", textContent: "Reading" }));
    this.history.open(namespace, name);
    this.stale(false);
    this.element.hidden = false;
    this.element.scrollTop = 0;
    this.element.focus();
    this.#read();
  }

  hide() {
    this.key = "";
    this.element.hidden = true;
    clearTimeout(this.#pending);
    this.#pending = 0;
  }

  /** Whether nobody has told of it for long. */
  stale(is) {
    this.warning.hidden = !is;
  }

  /** Something was said of this guest. */
  touch() {
    if (this.#pending) return;
    this.#pending = setTimeout(() => {
      this.#pending = 0;
      this.#read();
      this.history.refresh();
    }, PACE);
  }

  async #read() {
    const asked = (this.#asked += 1);
    let content;
    try {
      const response = await request(path(this.namespace, this.name));
      content = sections((await response.json()).status ?? {});
    } catch (error) {
      content = [el("p", { className: "note", textContent: error.status ? error.message : "The API does not answer." })];
    }
    if (asked !== this.#asked || !this.key) return;
    const open = new Set([...this.facts.querySelectorAll("details[open]")].map((each) => each.dataset.kind));
    this.facts.replaceChildren(...content);
    for (const each of this.facts.querySelectorAll("details")) each.open = open.has(each.dataset.kind);
  }
}

const section = (title, ...children) => el("section", {}, el("h3", { textContent: title }), ...children);

const note = (textContent) => el("p", { className: "note", textContent });

/** Names and values; what is not known is left out. */
function pairs(entries) {
  const known = entries.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return el("dl", {}, known.flatMap(([name, value]) => [
    el("dt", { textContent: name }),
    el("dd", {}, value instanceof Node ? value : String(value)),
  ]));
}

function time(text) {
  const element = el("time");
  setTime(element, text ? Date.parse(text) : 0);
  return text ? element : null;
}

function table(heads, rows) {
  return el("div", { className: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col", textContent: head })))),
    el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell) => el("td", {}, cell ?? "")))))));
}

/** When each kind was read, in a line. */
function readings(all) {
  const known = Object.entries(all).filter(([, { observedAt }]) => observedAt);
  return known.length ? el("span", { className: "readings" }, known.map(([kind, { observedAt }]) =>
    el("span", {}, `${kindWord(kind)} `, time(observedAt)))) : null;
}

/** A login's time, in seconds since the epoch; what is no time of any calendar is not shown. */
function since(seconds) {
  const login = new Date(1000 * seconds);
  return seconds && !isNaN(login) ? time(login.toISOString()) : "";
}

const SECTIONS = {
  agent(agent) {
    const errors = Object.entries(agent.readings ?? {}).filter(([, reading]) => reading.error);
    return section("Agent", pairs([
      ["State", stateOf(agent)], ["Since", time(agent.since)], ["Why", agent.reason], ["Version", agent.version],
      ["Guest", agent.phase], ["Host", agent.host], ["Domain", agent.domain], ["UID", agent.uid],
      ["Last read", readings(agent.readings ?? {})],
    ]), errors.length ? table(["Not read", "Why"], errors.map(([kind, { error }]) => [kindWord(kind), error])) : null);
  },
  guestosinfo(info) {
    const os = info.os ?? {};
    return section("System", pairs([
      ["OS", os.prettyName || os.name || os.id], ["Kernel", os.kernelRelease], ["Machine", os.machine],
      ["Host name", info.hostname], ["Time zone", info.timezone], ["Filesystems are", info.fsFreezeStatus],
    ]));
  },
  userlist(list) {
    if (!list.items?.length) return section("Logged in", note("Nobody."));
    const domains = list.items.some((user) => user.domain);
    return section("Logged in", table(["User", ...(domains ? ["Domain"] : []), "Since"], list.items.map((user) => [
      user.userName, ...(domains ? [user.domain] : []), since(user.loginTime),
    ])));
  },
  filesystemlist(list) {
    if (!list.items?.length) return section("Filesystems", note("None."));
    return section("Filesystems", table(["Mounted at", "Type", "Used", "Size"], list.items.map((each) => {
      const share = each.totalBytes ? each.usedBytes / each.totalBytes : null;
      return [each.mountPoint, each.fileSystemType, share === null ? "" : el("span", {}, bar(share), percent(share)),
        each.totalBytes ? bytes(each.totalBytes) : ""];
    })));
  },
  interfaces(body) {
    if (!body.guest) return section("Interfaces", note("Not known."));
    return section("Interfaces", table(["Name", "MAC", "Addresses"], body.guest.map((each) => [
      each.name, el("span", { className: "whole" }, each.mac ?? ""), (each.addresses ?? []).map(({ address, prefix }) => (prefix ? `${address}/${prefix}` : address)).join(" "),
    ])));
  },
};

/** Facts in sections; kinds this page does not know as they are. */
function sections(status) {
  const known = Object.keys(SECTIONS).filter((kind) => status[kind]).map((kind) => SECTIONS[kind](status[kind]));
  const others = Object.keys(status).filter((kind) => !(kind in SECTIONS)).sort().map((kind) => {
    const details = el("details", {}, el("summary", { textContent: kind }),
      el("pre", { textContent: JSON.stringify(status[kind], null, 1) }));
    details.dataset.kind = kind;
    return details;
  });
  if (!status.guestosinfo) known.push(note("Facts about the inside of the guest are not known at this time."));
  return others.length ? [...known, section("Further kinds", ...others)] : known;
}

function stateOf(agent) {
  let word = "connected";
  if (!agent.channel) word = "none";
  else if (!agent.connected || !["Running", "Paused"].includes(agent.phase)) word = "disconnected";
  else if (agent.responsive === false) word = "unresponsive";
  else if (agent.frozen) word = "frozen";
  const element = el("span", { className: "agent" }, el("span", { className: "dot", "aria-hidden": "true" }), AGENT_WORDS[word]);
  element.dataset.agent = word;
  const commands = agent.commands ? `, ${several(agent.commands.length, "command")}` : "";
  element.append(commands);
  return element;
}
