// Which guests are shown, and in which order.

import { freshness } from "./fleet.js";
import { AGENTS } from "./words.js";

const by = (value) => (one, other) => {
  const [a, b] = [value(one), value(other)];
  return a < b ? -1 : a > b ? 1 : 0;
};

/** How columns are sorted; the first click on a number shows the largest. */
const ORDERS = {
  name: { compare: by((row) => row.order), descending: false },
  agent: { compare: by((row) => AGENTS.indexOf(row.agent)), descending: false },
  os: { compare: by((row) => row.os), descending: false },
  address: { compare: by((row) => row.address), descending: false },
  users: { compare: by((row) => row.count), descending: true },
  disk: { compare: by((row) => row.used), descending: true },
  seen: { compare: by((row) => row.seen), descending: false },
};

const NAMES = ["text", "agent", "os", "user", "fresh", "namespace", "sort"];

export class View {
  wish = { text: "", agent: "", os: "", user: "", fresh: "", namespace: "", sort: "name" };
  list = [];
  positions = new Map();
  #stale = true;
  #wanted = () => true;

  /** Change what is wished for; `sort` is a column, with a dash before it the other way round. */
  set(wish) {
    Object.assign(this.wish, wish);
    this.#stale = true;
  }

  /** Click on a column's head. */
  sortBy(column) {
    const { descending } = ORDERS[column];
    const first = descending ? `-${column}` : column;
    const second = descending ? column : `-${column}`;
    this.set({ sort: this.wish.sort === first ? second : first });
  }

  get filtered() {
    const { text, agent, os, user, fresh, namespace } = this.wish;
    return Boolean(text.trim() || agent || os || user || fresh || namespace);
  }

  get sorted() {
    const descending = this.wish.sort.startsWith("-");
    return { column: descending ? this.wish.sort.slice(1) : this.wish.sort, descending };
  }

  /** Whether a guest that changed is shown elsewhere now, or not any more, or only now. */
  moves(before, row) {
    const { compare } = ORDERS[this.sorted.column];
    return this.#wanted(before) !== this.#wanted(row) || compare(before, row) !== 0;
  }

  /** Guests came, went or moved. */
  touch() {
    this.#stale = true;
  }

  /** Make the list anew if need be. Otherwise rows are only replaced by their newer selves. */
  update(rows) {
    if (!this.#stale) {
      for (let index = 0; index < this.list.length; index += 1) {
        this.list[index] = rows.get(this.list[index].key) ?? this.list[index];
      }
      return;
    }
    this.#stale = false;
    const { column, descending } = this.sorted;
    const { compare } = ORDERS[column];
    const tie = ORDERS.name.compare;
    const sign = descending ? -1 : 1;
    this.#wanted = this.#filter();
    this.list = [...rows.values()].filter(this.#wanted);
    this.list.sort((one, other) => sign * compare(one, other) || tie(one, other));
    this.positions = new Map(this.list.map((row, index) => [row.key, index]));
  }

  #filter() {
    const { agent, os, user, fresh, namespace } = this.wish;
    const now = Date.now();
    const words = this.wish.text.toLowerCase().split(/\s+/).filter(Boolean);
    return (row) =>
      (!agent || row.agent === agent) && (!os || row.os === os) && (!namespace || row.namespace === namespace) &&
      (!user || (row.users?.includes(user) ?? false)) && (!fresh || freshness(row, now) === fresh) && words.every((word) => row.search.includes(word));
  }

  /** As part of the page's address, so that a view can be kept and shared. */
  get address() {
    const wish = Object.entries(this.wish).filter(([name, value]) => value && !(name === "sort" && value === "name"));
    return new URLSearchParams(wish);
  }

  set address(parameters) {
    for (const name of NAMES) this.wish[name] = parameters.get(name) ?? (name === "sort" ? "name" : "");
    if (!(this.sorted.column in ORDERS)) this.wish.sort = "name";
    this.#stale = true;
  }
}
