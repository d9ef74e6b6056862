// The page: what comes from the stream goes into the fleet, what is seen of it is painted once per frame.

import { el, setText } from "./dom.js";
import { Fleet, keyOf } from "./fleet.js";
import { Glance } from "./glance.js";
import { GuestView } from "./guest.js";
import { State } from "./state.js";
import { Stream } from "./stream.js";
import { Table } from "./table.js";
import { View } from "./view.js";
import { AGENT_WORDS, FRESH_WORDS, number, several, tick } from "./words.js";

/** Milliseconds between two counts of the whole fleet, and between two sorts while all comes in or changes. */
const COUNT_PACE = 1000;
const SORT_PACE = 200;

const at = (id) => document.getElementById(id);
const fleet = new Fleet();
const view = new View();
const state = new State(at("state"), at("banner"), { onRetry: () => stream.retry(), onNamespace: (name) => filter({ namespace: name }) });
const table = new Table(at("grid"), { onOpen: (row) => open(row), onSort: (column) => (view.sortBy(column), changed()) });
const glance = new Glance(at("glance"), { onFilter: (wish) => filter(wish), onOpen: (row) => open(row) });
const guest = new GuestView(at("guest"), { onClose: () => close() });

let stream = null;
let scope = null;
let level = false;
let newest = 0;
let frame = 0;
let counted = 0;
let sorted = 0;
let stale = true;
let recount = 0;

function follow(namespace) {
  stream?.stop();
  scope = namespace;
  fleet.reset();
  level = false;
  stream = new Stream(namespace, {
    state: (name, message) => state.set(name, message),
    reset: () => {
      fleet.reset();
      level = false;
      touch();
    },
    rows: (event) => {
      if (fleet.apply(event, (before, row) => view.moves(before, row))) stale = true;
      if (guest.key && event.rows.some((row) => row.key === guest.key)) guest.touch();
      touch();
    },
    level: (event) => {
      if (!level) [stale, counted] = [true, 0];
      level = true;
      newest = event.newest;
      fleet.silence = 1000 * event.silence;
      age();
      state.set("live");
      touch();
    },
  });
}

/** Whom nobody has told of for long is stale from now on. */
function age() {
  if (fleet.age()) {
    stale = true;
    counted = 0;
    touch();
  }
  if (guest.key) guest.stale(fleet.rows.get(guest.key)?.agent === "stale");
}

/** Something is to be painted, in the next frame. */
function touch() {
  frame ||= requestAnimationFrame(paint);
}

function paint(now) {
  frame = 0;
  if (stale && now - sorted >= SORT_PACE) {
    view.touch();
    stale = false;
    sorted = now;
  }
  view.update(fleet.rows);
  table.show(view.list, view.positions, view.sorted);
  words();
  if (now - counted >= COUNT_PACE || !counted) {
    counted = now;
    glance.show(fleet.rows, view.wish, newest);
    namespaces();
  } else {
    recount ||= setTimeout(() => {
      recount = 0;
      touch();
    }, COUNT_PACE);
  }
  if (stale) setTimeout(touch, SORT_PACE);
}

function words() {
  const total = fleet.rows.size;
  setText(at("count"), view.filtered ? `${number(view.list.length)} of ${several(total, "guest")}` : several(total, "guest"));
  at("empty").hidden = !level || stale || Boolean(view.list.length);
  setText(at("empty"), total ? "No guest is like that." : "There are no guests yet. They appear here as soon as a collector has seen them.");
  chips();
}

const CHIPS = { agent: AGENT_WORDS, os: {}, user: {}, fresh: FRESH_WORDS };

/** What is chosen by the cards, each to be taken back; a button that is still right keeps the focus it may have. */
function chips() {
  const texts = Object.entries(CHIPS).filter(([name]) => view.wish[name]).map(([name, known]) => {
    const wish = view.wish[name];
    return [name, `${name === "fresh" ? "seen" : name}: ${Object.hasOwn(known, wish) ? known[wish] : wish}`];
  });
  const before = [...at("chips").children].map((chip) => chip.firstChild.textContent);
  if (before.join("\u0000") === texts.map(([, text]) => text).join("\u0000")) return;
  at("chips").replaceChildren(...texts.map(([name, text]) => el("button", {
    type: "button", title: `${text}: show all again`, onclick: () => filter({ [name]: "" }),
  }, el("span", { textContent: text }), el("span", { textContent: "\u00d7", "aria-label": "remove" }))));
}

let offered = "";

function namespaces() {
  const names = [...new Set([...fleet.rows.values()].map((row) => row.namespace))];
  if (view.wish.namespace && !names.includes(view.wish.namespace)) names.push(view.wish.namespace);
  names.sort();
  const select = at("namespace");
  if (offered !== names.join("\u0000")) {
    offered = names.join("\u0000");
    select.replaceChildren(new Option("all", ""), ...names.map((name) => new Option(name, name)));
  }
  select.value = view.wish.namespace;
}

/** After what is shown, or how, was chosen anew. */
function changed() {
  view.touch();
  counted = 0;
  const query = view.address;
  if (guest.key) query.set("guest", guest.key.replace("\u0000", "/"));
  history.replaceState(null, "", query.size ? `#${query}` : location.pathname);
  touch();
}

function filter(wish) {
  view.set(wish);
  if (at("search").value !== view.wish.text) at("search").value = view.wish.text;
  if (state.name === "refused" && view.wish.namespace !== scope) follow(view.wish.namespace);
  changed();
}

function open(row) {
  guest.open(row.namespace, row.name);
  table.select(row.key);
  changed();
}

function close() {
  guest.hide();
  changed();
  at("grid").focus({ preventScroll: true });
}

addEventListener("keydown", (event) => {
  if (at("token").open || event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "/" && !typing) at("search").focus();
  else if (event.key === "Escape" && guest.key) close();
  else if (event.key === "Escape" && event.target === at("search")) filter({ text: "" });
  else if (event.key === "ArrowDown" && event.target === at("search")) (at("grid").focus({ preventScroll: true }), table.move(0));
  else return;
  event.preventDefault();
});
at("search").addEventListener("input", (event) => filter({ text: event.target.value }));
at("namespace").addEventListener("change", (event) => filter({ namespace: event.target.value }));
document.addEventListener("visibilitychange", () => document.hidden || stream.retry());
setInterval(() => {
  tick();
  state.tick();
  age();
  if (view.wish.fresh) {
    stale = true;
    touch();
  }
}, 1000);

const wished = new URLSearchParams(location.hash.slice(1));
view.address = wished;
at("search").value = view.wish.text;
follow("");
touch();
const [namespace, ...name] = (wished.get("guest") ?? "").split("/");
if (name.length) open({ namespace, name: name.join("/"), key: keyOf(namespace, name.join("/")) });
