// Numbers, times and states as people read them.

const STEPS = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [Infinity, 86400, "d"]];
const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** How long ago a time was (milliseconds since the epoch), in its largest unit. */
export function ago(time, now = Date.now()) {
  const seconds = Math.max(0, (now - time) / 1000);
  if (seconds < 5) return "now";
  const [, unit, word] = STEPS.find(([end]) => seconds < end);
  return `${Math.floor(seconds / unit)} ${word}`;
}

/** A <time> that shows how long ago; its title is the time itself. */
export function setTime(element, time) {
  if (element.moment === time) return;
  element.moment = time;
  element.dateTime = time ? new Date(time).toISOString() : "";
  element.title = time ? absolute.format(time) : "";
  element.textContent = time ? ago(time) : "";
}

/** Tell all times of the document anew; those that are not shown are not there. */
export function tick() {
  const now = Date.now();
  for (const element of document.querySelectorAll("time")) {
    if (!element.moment) continue;
    const text = ago(element.moment, now);
    if (element.textContent !== text) element.textContent = text;
  }
}

export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let size = count;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size >= 100 || unit === 0 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

export const percent = (share) => `${Math.floor(100 * share)} %`;

export const number = (count) => count.toLocaleString("en");

/** One, or how many. */
export const several = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

/** How long ago a guest was seen. */
export const FRESH_WORDS = {
  recent: "within 3 minutes", late: "within 15 minutes", old: "longer ago", never: "never read",
};

/** Kinds of facts, as their sections are called. */
export const KIND_WORDS = {
  agent: "Agent", guestosinfo: "System", userlist: "Logged in", filesystemlist: "Filesystems", interfaces: "Interfaces",
};

/** A kind's section; a kind this page does not know is called what it is. */
export const kindWord = (kind) => (Object.hasOwn(KIND_WORDS, kind) ? KIND_WORDS[kind] : kind);

/** A moment (milliseconds since the epoch), whole. */
export const moment = (time) => absolute.format(time);

/** The states of an agent, what needs a look first. */
export const AGENTS = ["stale", "unresponsive", "disconnected", "frozen", "connected", "none"];
export const AGENT_WORDS = {
  unresponsive: "does not answer", disconnected: "disconnected", frozen: "frozen", connected: "connected", none: "no agent",
  stale: "not heard of",
};
