// The stream of rows: server-sent events by fetch, as an EventSource cannot say who reads.

import { Refused, path, request } from "./api.js";

/** Milliseconds without a word after which a connection is taken for lost; the API gives a sign every 5 seconds. */
const SILENCE = 15000;
const SHORTEST = 1000;
const LONGEST = 15000;
/** Milliseconds before asking again for what was refused, in case rights were given meanwhile. */
const REFUSED = 30000;

/** Follows guests until stopped. `on` has a function for each event: reset, rows, level; and state(name, message). */
export class Stream {
  #last = "";
  #stopped = new AbortController();
  #again = () => {};

  constructor(namespace, on) {
    this.where = `${path(namespace)}?watch=true`;
    this.on = on;
    this.#run();
  }

  stop() {
    this.#stopped.abort();
    this.#again();
  }

  /** Try now. */
  retry() {
    this.#again();
  }

  async #run() {
    let pause = SHORTEST;
    while (!this.#stopped.signal.aborted) {
      let state = "lost";
      let message = "";
      try {
        await this.#follow(() => (pause = SHORTEST));
      } catch (error) {
        if (error instanceof Refused) {
          state = { 503: "filling", 401: "unknown", 403: "refused" }[error.status] ?? "lost";
          message = error.message;
        }
      }
      if (this.#stopped.signal.aborted) return;
      this.on.state(state, message);
      await this.#sleep(state === "filling" ? SHORTEST : state === "lost" ? pause : REFUSED);
      pause = Math.min(2 * pause, LONGEST);
    }
  }

  #sleep(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#again = () => (clearTimeout(timer), resolve());
    });
  }

  async #follow(connected) {
    const cut = new AbortController();
    const stop = () => cut.abort();
    this.#stopped.signal.addEventListener("abort", stop);
    let timer = 0;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE);
    };
    try {
      const headers = this.#last ? { "Last-Event-ID": this.#last } : {};
      const response = await request(this.where, { accept: "text/event-stream", headers, signal: cut.signal });
      connected();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let parts = [];
      for (;;) {
        heard();
        const { done, value } = await reader.read();
        if (done) return;
        parts.push(value);
        if (!value.includes("\n")) continue;
        const events = parts.join("").split("\n\n");
        parts = [events.pop()];
        for (const event of events) this.#take(event);
      }
    } finally {
      clearTimeout(timer);
      cut.abort();
      this.#stopped.signal.removeEventListener("abort", stop);
    }
  }

  #take(text) {
    let name = "message";
    let data = "";
    for (const line of text.split("\n")) {
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).trimStart();
      if (field === "event") name = value;
      else if (field === "data") data = value;
      else if (field === "id") this.#last = value;
    }
    if (Object.hasOwn(this.on, name) && name !== "state") this.on[name](JSON.parse(data));
  }
}
