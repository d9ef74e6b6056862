// The guests as a grid of which only the visible rows are in the document.

import { bar, el, setBar, setText } from "./dom.js";
import { AGENT_WORDS, percent, setTime } from "./words.js";

const COLUMNS = [
  ["name", "Guest"], ["agent", "Agent"], ["os", "System"], ["address", "Address"], ["users", "Logged in"],
  ["disk", "Fullest filesystem"], ["seen", "Seen"],
];

/** Rows above and below the visible ones. */
const MARGIN = 8;

export class Table {
  #rows = [];
  #list = [];
  #selected = "";
  #positions = new Map();
  #height = 40;

  constructor(element, { onOpen, onSort }) {
    this.element = element;
    this.onOpen = onOpen;
    this.heads = COLUMNS.map(([column, title]) => el("div", { role: "columnheader", className: `cell ${column}` },
      el("button", { type: "button", textContent: title, onclick: () => onSort(column) })));
    this.head = el("div", { role: "row", className: "row head", "aria-rowindex": "1" }, this.heads);
    this.body = el("div", { role: "rowgroup", className: "body" });
    element.append(el("div", { role: "rowgroup", className: "heads" }, this.head), this.body);
    element.setAttribute("aria-colcount", COLUMNS.length);
    element.addEventListener("keydown", (event) => this.#key(event));
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest(".row")?.row;
      if (row) this.#open(row);
    });
    addEventListener("scroll", () => this.paint(), { passive: true });
    addEventListener("resize", () => this.paint());
  }

  /** Show a list of rows; `positions` says where each key is in it. */
  show(list, positions, sorted) {
    this.#list = list;
    this.#positions = positions;
    this.element.setAttribute("aria-rowcount", list.length + 1);
    COLUMNS.forEach(([column], index) => {
      const order = column === sorted.column ? (sorted.descending ? "descending" : "ascending") : "none";
      if (this.heads[index].getAttribute("aria-sort") !== order) this.heads[index].setAttribute("aria-sort", order);
    });
    this.paint();
  }

  /** Make what can be seen true. Rows that show the right thing are left alone. */
  paint() {
    const height = parseFloat(getComputedStyle(this.element).getPropertyValue("--row")) || 40;
    const count = this.#list.length;
    if (this.count !== count || this.#height !== height) this.body.style.height = `${count * height}px`;
    this.count = count;
    this.#height = height;
    const top = this.body.getBoundingClientRect().top;
    const first = Math.min(count, Math.max(0, Math.floor(-top / height) - MARGIN));
    const last = Math.min(count, Math.max(first, Math.ceil((innerHeight - top) / height) + MARGIN));
    const spare = Math.max(0, last - first);
    while (this.#rows.length < spare) this.#rows.push(this.#make());
    while (this.#rows.length > spare + 40) this.#rows.pop().remove();
    const size = this.#rows.length;
    for (let index = first; index < first + size; index += 1) {
      const element = this.#rows[index % size];
      if (index < last) this.#fill(element, index, this.#list[index], height);
      else if (!element.hidden) this.#empty(element);
    }
    this.#mark();
  }

  #make() {
    const cells = Object.fromEntries(COLUMNS.map(([column]) => [
      column, el("div", { role: "gridcell", className: `cell ${column}` }),
    ]));
    cells.name.append(el("span", { className: "namespace" }), el("span", { className: "guest" }));
    cells.agent.append(el("span", { className: "dot", "aria-hidden": "true" }), el("span"));
    cells.disk.append(bar(0), el("span", { className: "share" }), el("span", { className: "mount" }));
    cells.seen.append(el("time"));
    const element = el("div", { role: "row", className: "row", hidden: true }, Object.values(cells));
    element.cells = cells;
    this.body.append(element);
    return element;
  }

  #empty(element) {
    element.hidden = true;
    element.row = null;
    element.removeAttribute("id");
  }

  #fill(element, index, row, height) {
    if (element.index !== index || element.height !== height || element.hidden) {
      element.index = index;
      element.height = height;
      element.hidden = false;
      element.id = `row-${index}`;
      element.setAttribute("aria-rowindex", index + 2);
      element.style.transform = `translateY(${index * height}px)`;
    }
    if (element.row === row) return;
    element.row = row;
    const { name, agent, os, address, users, disk, seen } = element.cells;
    setText(name.firstChild, `${row.namespace}/`);
    setText(name.lastChild, row.name);
    name.title = `${row.namespace}/${row.name}`;
    agent.dataset.agent = row.agent;
    setText(agent.lastChild, AGENT_WORDS[row.agent] ?? row.agent);
    setText(os, row.os);
    setText(address, row.address);
    setText(users, row.users?.length ? `${row.users.length}: ${row.users.join(", ")}` : row.users ? "nobody" : "");
    users.classList.toggle("nobody", row.count === 0);
    disk.classList.toggle("unknown", !row.fullest);
    if (row.fullest) {
      setBar(disk.firstChild, row.fullest.used);
      setText(disk.children[1], percent(row.fullest.used));
      setText(disk.children[2], row.fullest.mountPoint);
    }
    setTime(seen.firstChild, row.seen);
  }

  #mark() {
    const position = this.#positions.get(this.#selected);
    for (const element of this.#rows) {
      const selected = Boolean(element.row) && element.row.key === this.#selected;
      if (element.selected === selected) continue;
      element.selected = selected;
      element.setAttribute("aria-selected", selected);
    }
    const id = position === undefined ? "" : `row-${position}`;
    if (id && document.getElementById(id)) this.element.setAttribute("aria-activedescendant", id);
    else this.element.removeAttribute("aria-activedescendant");
  }

  /** Mark a guest, and bring it into sight. */
  select(key, { scroll = true } = {}) {
    this.#selected = key;
    const position = this.#positions.get(key);
    if (scroll && position !== undefined) {
      const { top } = this.body.getBoundingClientRect();
      const begin = top + position * this.#height;
      const above = this.head.getBoundingClientRect().bottom;
      if (begin < above) scrollBy(0, begin - above);
      else if (begin + this.#height > innerHeight) scrollBy(0, begin + this.#height - innerHeight);
    }
    this.paint();
  }

  /** Go some rows down, or up; from nowhere, as if from above the first. */
  move(steps) {
    if (!this.#list.length) return;
    const position = this.#positions.get(this.#selected) ?? (steps > 0 ? -1 : 0);
    const next = Math.min(this.#list.length - 1, Math.max(0, position + steps));
    this.select(this.#list[next].key);
  }

  #open(row) {
    this.select(row.key);
    this.onOpen(row);
  }

  #key(event) {
    if (event.target !== this.element || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor((innerHeight - this.head.getBoundingClientRect().bottom) / this.#height) - 1);
    const steps = {
      ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -this.#list.length, End: this.#list.length,
    }[event.key];
    if (steps) this.move(steps);
    else if (event.key === "Enter" && this.#positions.has(this.#selected)) {
      this.#open(this.#list[this.#positions.get(this.#selected)]);
    } else return;
    event.preventDefault();
  }
}
