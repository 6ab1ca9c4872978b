// Elements with text: what peers wrote is never read as markup.

export const byId = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

// Sets text only where it differs: a screen reader says again what is set again.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// What is wrong with what is shown; empty: nothing.
export function trouble(text) {
  byId("trouble").hidden = !text;
  say(byId("trouble"), text);
}

export function fill(node, children) {
  node.replaceChildren(...children);
}

export function row(cells, { head = false } = {}) {
  return el("tr", {}, ...cells.map((cell, index) => {
    if (cell instanceof Node) return cell;
    if (head) return el("th", { scope: "col" }, cell);
    return index === 0 ? el("th", { scope: "row" }, cell) : el("td", {}, cell);
  }));
}

export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
