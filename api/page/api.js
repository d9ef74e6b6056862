// Requests to the API this page came from.

import { ask, forget, token } from "./token.js";

const ROOT = new URL("../apis/guestwire.io/v1/", import.meta.url);

/** An answer that is no success; `message` as the API says it. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The path of guests: all, those of a namespace, one of them, a part of one. */
export function path(namespace, name, part) {
  const at = namespace ? `namespaces/${encodeURIComponent(namespace)}/guests` : "guests";
  return [at, name && encodeURIComponent(name), part].filter(Boolean).join("/");
}

/** A response that is a success. Asks for a token when the API asks who reads. Throws Refused, or TypeError. */
export async function request(where, { accept = "application/json", headers = {}, signal } = {}) {
  for (;;) {
    const used = token();
    const authorization = used ? { Authorization: `Bearer ${used}` } : {};
    const response = await fetch(new URL(where, ROOT), {
      headers: { Accept: accept, ...headers, ...authorization }, signal, cache: "no-store", redirect: "error",
    });
    if (response.ok) return response;
    if (response.status !== 401) throw new Refused(response.status, await message(response));
    if (used && used === token()) forget();
    if (!token() && !(await ask(used ? "The API does not take this token." : ""))) {
      throw new Refused(401, "The API asks who reads, and no token was given.");
    }
  }
}

async function message(response) {
  try {
    return (await response.json()).message ?? response.statusText;
  } catch {
    return response.statusText || `status ${response.status}`;
  }
}
