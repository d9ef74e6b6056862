// Elements from plain data. Text only ever becomes text: nothing here takes markup.

/** An element with properties, attributes (names with a dash, and role) and children; strings become text. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Set an element's text, only if it is another. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A bar that is filled to a share from 0 to 1. */
export function bar(share) {
  const fill = el("span", { className: "fill" });
  const element = el("span", { className: "bar", "aria-hidden": "true" }, fill);
  setBar(element, share);
  return element;
}

export function setBar(element, share) {
  element.firstChild.style.width = `${Math.round(100 * Math.min(1, Math.max(0, share)))}%`;
  element.dataset.level = share >= 0.95 ? "full" : share >= 0.85 ? "high" : "";
}
