// Numbers as words, and elements as values: nothing here knows what it shows.

export const CAUSES = {
  reused: "reused",
  unseen: "unseen (new)",
  alignment: "alignment (off the grid)",
  placement: "placement (no state there)",
  eviction: "eviction (state dropped)",
  reset: "reset (emptied, or restarted)",
};

const number = new Intl.NumberFormat("en");

export const count = (value) => number.format(Math.round(value));

export const share = (part, whole) => (whole ? `${Math.round((100 * part) / whole)} %` : "–");

export function short(value) {
  for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (value >= size) return `${trimmed(value / (letter === "k" ? 1e3 : size))}${letter}`;
  }
  return count(value);
}

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${trimmed(value)} ${units[unit]}`;
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  return value < 1 ? `${Math.round(1000 * value)} ms` : `${trimmed(value)} s`;
}

export function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

function trimmed(value) {
  return value >= 100 ? count(value) : String(Number(value.toPrecision(value >= 10 ? 3 : 2)));
}

// An element with a class, and what is in it: texts, elements, or nothing.
export function make(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content.filter((each) => each !== null && each !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function draw(tag, attributes, ...content) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...content);
  return element;
}

export const show = (id, ...content) => document.getElementById(id).replaceChildren(...content);

export function table(id, caption, columns, rows) {
  const head = make("tr", "", ...columns.map((each) => Object.assign(make("th", "", each), { scope: "col" })));
  const body = rows.map((row) => {
    const [first, ...rest] = row;
    const cells = rest.map((each) => make("td", "", each));
    return make("tr", "", Object.assign(make("th", "", first), { scope: "row" }), ...cells);
  });
  show(id, make("caption", "", caption), make("thead", "", head), make("tbody", "", ...body));
}
