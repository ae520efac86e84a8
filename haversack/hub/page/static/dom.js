// Elements made by hand. Text is only ever set as text, so a name with markup stays a name.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

export function button(label, symbol, onclick, { kind = "", wordless = false } = {}) {
  return element(
    "button",
    { type: "button", class: kind, title: label, "aria-label": label, onclick },
    symbol && icon(symbol),
    wordless ? null : element("span", {}, label),
  );
}

export const byId = (id) => document.getElementById(id);
