// Whether what is shown is true now, and if not, since when.

import { el } from "./dom.js";
import { ago } from "./words.js";

const WORDS = { connecting: "Connecting", live: "Live", filling: "Filling", lost: "Connection lost", refused: "Refused", unknown: "Token needed" };

export class State {
  name = "connecting";
  #heard = 0;
  #message = "";

  constructor(word, banner, { onRetry, onNamespace }) {
    this.word = word;
    this.banner = banner;
    this.text = el("span");
    this.retry = el("button", { type: "button", textContent: "Try now", onclick: onRetry });
    this.namespace = el("input", { type: "text", autocomplete: "off", spellcheck: false, "aria-label": "Namespace" });
    this.scope = el("label", { hidden: true }, "One namespace instead: ", this.namespace);
    this.namespace.addEventListener("change", () => this.namespace.value && onNamespace(this.namespace.value));
    banner.append(this.text, this.retry, this.scope);
  }

  set(name, message = "") {
    if (name === "live") this.#heard = Date.now();
    this.#message = message;
    if (this.name !== name) {
      this.name = name;
      this.word.dataset.state = name;
      this.word.textContent = WORDS[name];
      this.banner.hidden = name === "live" || name === "connecting";
      this.scope.hidden = name !== "refused";
    }
    this.tick();
  }

  /** The banner's words, with the age of what is shown. */
  tick() {
    if (this.banner.hidden) return;
    const age = this.#heard ? ` What is shown is as it was ${ago(this.#heard).replace("now", "a moment")} ago.` : "";
    const text = {
      lost: `The connection to the API is lost; it is tried again and again.${age}`,
      filling: `The API is still reading the stream and will answer in a moment.${age}`,
      unknown: this.#message,
      refused: `${this.#message}.`,
    }[this.name];
    if (this.text.textContent !== text) this.text.textContent = text;
  }
}
