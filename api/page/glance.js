// The fleet at a glance: each line of a card is a button that shows the guests it counts.

import { bar, el, setBar, setText } from "./dom.js";
import { freshness } from "./fleet.js";
import { AGENT_WORDS, FRESH_WORDS, ago, number, percent, several } from "./words.js";

const LINES = 6;
const SHOWN = ["connected", "frozen", "unresponsive", "disconnected", "none", "stale"];

/** The entries of a count, the largest first. */
const largest = (counts) => [...counts].sort((one, other) => other[1] - one[1] || (one[0] < other[0] ? -1 : 1));

const add = (counts, key) => counts.set(key, (counts.get(key) ?? 0) + 1);

/** What the cards say of all guests. */
export function summary(rows, now = Date.now()) {
  const [agents, systems, users] = [new Map(), new Map(), new Map()];
  const fresh = { recent: 0, late: 0, old: 0, never: 0 };
  const fullest = [];
  let [logins, taken] = [0, 0];
  for (const row of rows.values()) {
    add(agents, row.agent);
    if (row.os) add(systems, row.os);
    for (const name of row.users ?? []) add(users, name);
    logins += row.users?.length ?? 0;
    taken += row.count > 0 ? 1 : 0;
    if (row.used >= 0 && (fullest.length < LINES || row.used > fullest.at(-1).used)) {
      fullest.push(row);
      fullest.sort((one, other) => other.used - one.used);
      fullest.length = Math.min(fullest.length, LINES);
    }
    fresh[freshness(row, now)] += 1;
  }
  return { total: rows.size, agents, systems, users, logins, taken, fullest, fresh };
}

class Card {
  constructor(title) {
    this.note = el("p", { className: "note" });
    this.list = el("ul");
    this.element = el("section", { className: "card" }, el("h3", { textContent: title }), this.note, this.list);
    this.lines = [];
  }

  /** Show lines {text, more, title, value, share, pressed, act, dot}; those that are there are used again. */
  show(note, lines) {
    setText(this.note, note);
    while (this.lines.length < lines.length) {
      const button = el("button", { type: "button" }, el("span", { className: "dot", "aria-hidden": "true" }),
        el("span", { className: "what" }, el("span"), el("span", { className: "more" })), el("span", { className: "value" }), bar(0));
      button.onclick = () => button.act?.();
      this.lines.push(el("li", {}, button));
      this.list.append(this.lines.at(-1));
    }
    this.lines.forEach((item, index) => {
      const line = lines[index];
      item.hidden = !line;
      if (!line) return;
      const button = item.firstChild;
      const [dot, what, value, share] = button.children;
      dot.hidden = !line.dot;
      button.dataset.agent = line.dot ?? "";
      setText(what.firstChild, line.text);
      setText(what.lastChild, line.more ?? "");
      if (button.title !== (line.title ?? "")) button.title = line.title ?? "";
      setText(value, line.value);
      setBar(share, line.share);
      if (!line.levels) share.dataset.level = "";
      button.act = line.act;
      if (line.pressed !== undefined) button.setAttribute("aria-pressed", line.pressed);
    });
  }
}

export class Glance {
  constructor(element, { onFilter, onOpen }) {
    this.onFilter = onFilter;
    this.onOpen = onOpen;
    this.cards = {
      agents: new Card("Agents"), systems: new Card("Operating systems"), disks: new Card("Fullest filesystems"),
      users: new Card("Logged in"), fresh: new Card("Freshness"),
    };
    element.append(...Object.values(this.cards).map((card) => card.element));
  }

  show(rows, wish, newest) {
    const seen = summary(rows);
    const share = (count) => (seen.total ? count / seen.total : 0);
    const filter = (name, value) => ({
      pressed: wish[name] === value, act: () => this.onFilter({ [name]: wish[name] === value ? "" : value }),
    });
    this.cards.agents.show(several(seen.total, "guest"), SHOWN.map((agent) => ({
      text: AGENT_WORDS[agent], dot: agent, value: number(seen.agents.get(agent) ?? 0),
      share: share(seen.agents.get(agent) ?? 0), ...filter("agent", agent),
    })));
    const systems = largest(seen.systems);
    this.cards.systems.show(several(systems.length, "system"), systems.slice(0, LINES).map(([os, count]) => ({
      text: os, title: os, value: number(count), share: share(count), ...filter("os", os),
    })));
    this.cards.disks.show("used, where it is known", seen.fullest.map((row) => ({
      text: `${row.namespace}/${row.name}`, title: `${row.namespace}/${row.name}: ${row.fullest.mountPoint}`,
      more: row.fullest.mountPoint, value: percent(row.used), share: row.used, levels: true, act: () => this.onOpen(row),
    })));
    const names = largest(seen.users);
    this.cards.users.show(`${several(seen.logins, "user")} on ${several(seen.taken, "guest")}`,
      names.slice(0, LINES).map(([name, count]) => ({
        text: name, title: name, value: several(count, "guest"), share: share(count), ...filter("user", name),
      })));
    const age = newest ? ago(1000 * newest) : "";
    this.cards.fresh.show(newest ? `newest message: ${age}${age === "now" ? "" : " ago"}` : "",
      Object.entries(seen.fresh).map(([name, count]) => ({
        text: FRESH_WORDS[name], value: number(count), share: share(count), ...filter("fresh", name),
      })));
  }
}
