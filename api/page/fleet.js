// All guests as the stream tells them, in memory.

/** What tells a guest from any other; a name cannot hold the character between. */
export const keyOf = (namespace, name) => `${namespace}\u0000${name}`;

const MINUTE = 60000;

/** How long ago a guest was seen, in four classes. */
export function freshness(row, now = Date.now()) {
  if (!row.seen) return "never";
  const age = now - row.seen;
  return age < 3 * MINUTE ? "recent" : age < 15 * MINUTE ? "late" : "old";
}

/** Digits compare as numbers: vm2 comes before vm10. */
const natural = (text) => text.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(12, "0"));

/** A row of the stream with what is looked at often, made once. */
function prepared(row) {
  row.state ??= row.agent;
  row.told = row.toldAt ? Date.parse(row.toldAt) : Infinity;
  row.key = keyOf(row.namespace, row.name);
  row.order = `${natural(row.namespace)}\u0000${natural(row.name)}`;
  row.seen = row.observedAt ? Date.parse(row.observedAt) : 0;
  row.used = row.fullest ? row.fullest.used : -1;
  row.count = row.users ? row.users.length : -1;
  row.os ??= "";
  row.address ??= "";
  row.search = [
    row.namespace, "/", row.name, " ", row.agent, " ", row.phase, " ", row.host, " ", row.os, " ", row.address, " ",
    row.hostname ?? "", " ", row.kernel ?? "", " ", row.version ?? "", " ", row.users ? row.users.join(" ") : "",
  ].join("").toLowerCase();
  return row;
}

export class Fleet {
  rows = new Map();
  /** Milliseconds without a word about a guest after which it is stale: three heartbeats; the stream says how many. */
  silence = Infinity;

  reset() {
    this.rows.clear();
  }

  /** Take in an event; whether guests came or went, or `moves(before, row)` says so of one that changed. */
  apply({ gone, rows }, moves) {
    let moved = false;
    for (const [namespace, name] of gone) moved = this.rows.delete(keyOf(namespace, name)) || moved;
    for (const each of rows) {
      const row = prepared(each);
      const before = this.rows.get(row.key);
      moved ||= !before || moves(before, row);
      this.rows.set(row.key, row);
    }
    return moved;
  }

  /** Time alone makes a guest stale, no event does: look who is; whether others are than before. */
  age(now = Date.now()) {
    let moved = false;
    for (const [key, row] of this.rows) {
      const agent = now - row.told > this.silence ? "stale" : row.state;
      if (agent === row.agent) continue;
      this.rows.set(key, prepared({ ...row, agent }));
      moved = true;
    }
    return moved;
  }
}
