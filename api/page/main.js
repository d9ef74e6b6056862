// The page: what comes from the stream goes into the fleet, what is seen of it is painted once per frame.

import { Fleet, keyOf } from "./fleet.js";
import { Glance } from "./glance.js";
import { GuestView } from "./guest.js";
import { State } from "./state.js";
import { Stream } from "./stream.js";
import { Table } from "./table.js";
import { View } from "./view.js";
import { number, several, tick } from "./words.js";

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
      state.set("live");
      touch();
    },
  });
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
  if (now - counted >= COUNT_PACE || !counted) {
    counted = now;
    glance.show(fleet.rows, view.wish, newest);
    namespaces();
    words();
  }
  if (stale) setTimeout(touch, SORT_PACE);
}

function words() {
  const total = fleet.rows.size;
  at("count").textContent = view.filtered ? `${number(view.list.length)} of ${several(total, "guest")}` : several(total, "guest");
  const empty = level && !view.list.length;
  at("empty").hidden = !empty;
  at("empty").textContent = total ? "No guest is like that." : "There are no guests yet. They appear here as soon as a collector has seen them.";
  at("chips").replaceChildren(...["agent", "os", "user"].filter((name) => view.wish[name]).map((name) => {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.textContent = `${name}: ${view.wish[name]} \u00d7`;
    chip.title = "Show all again";
    chip.onclick = () => filter({ [name]: "" });
    return chip;
  }));
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
}, 1000);

const wished = new URLSearchParams(location.hash.slice(1));
view.address = wished;
at("search").value = view.wish.text;
follow("");
touch();
const [namespace, ...name] = (wished.get("guest") ?? "").split("/");
if (name.length) open({ namespace, name: name.join("/"), key: keyOf(namespace, name.join("/")) });
