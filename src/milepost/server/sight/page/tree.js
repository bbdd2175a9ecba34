// The tree of prompts on one axis of tokens: each row is an edge, each mark a position that can be resumed from.

import { bytes, count, make, plural, short, show, table } from "./words.js";

const MARKS = {
  memory: ["memory", "state in memory"],
  elsewhere: ["elsewhere", "in a slower tier alone"],
  promised: ["promised", "kept for a client"],
  lost: ["lost", "was there, and went"],
};

// A leaf that nothing is held of is one of many: its parent counts it.
function folded(nodes) {
  const parents = new Set(nodes.map((node) => node.parent));
  const bare = nodes.map((node, index) => !parents.has(index) && !node.kv_tokens && !marksOf(node).length);
  if (bare.every(Boolean)) return { nodes, num: 0 };
  const more = nodes.map((_, index) => nodes.filter((node, at) => bare[at] && node.parent === index).length);
  const told = nodes.map((node, index) => ({ ...node, isBare: bare[index], num_hidden: node.num_hidden + more[index] }));
  return { nodes: told, num: nodes.filter((node, at) => bare[at] && node.parent === null).length };
}

// Parents before their children, each child below its parent.
function inOrder(nodes) {
  const below = new Map();
  nodes.forEach((node, index) => {
    if (node.isBare) return;
    const siblings = below.get(node.parent) ?? [];
    siblings.push(index);
    below.set(node.parent, siblings);
  });
  const rows = [];
  const walk = [...(below.get(null) ?? [])].reverse().map((index) => [index, 0]);
  while (walk.length) {
    const [index, depth] = walk.pop();
    rows.push({ ...nodes[index], depth });
    for (const child of (below.get(index) ?? []).toReversed()) walk.push([child, depth + 1]);
  }
  return rows;
}

function marksOf(node) {
  const held = new Map(node.checkpoints.map((each) => [each.position, each]));
  const marks = node.checkpoints.map((each) => {
    const also = Object.keys(node.elsewhere).filter((tier) => node.elsewhere[tier].includes(each.position));
    const words = [`${count(each.position)} tokens`, bytes(each.bytes), ["memory", ...also].join(" and ")];
    if (each.is_promised) words.push("kept for a client");
    if (each.is_pinned) words.push("in use");
    return { at: each.position, kind: each.is_promised ? "promised" : "memory", words: words.join(", ") };
  });
  for (const [tier, positions] of Object.entries(node.elsewhere)) {
    for (const at of positions) {
      if (!held.has(at) && !marks.some((each) => each.at === at)) {
        marks.push({ at, kind: "elsewhere", words: `${count(at)} tokens, in ${tier} alone` });
      }
    }
  }
  for (const at of node.lost) {
    if (!marks.some((each) => each.at === at)) {
      marks.push({ at, kind: "lost", words: `${count(at)} tokens: a state was here, and went` });
    }
  }
  return marks;
}

export function tree(found) {
  const { nodes, num: numBare } = folded(found ? found.nodes : []);
  const rows = inOrder(nodes);
  const numHidden = numBare + (found ? found.num_hidden : 0);
  const deepest = niceEnd(Math.max(64, ...rows.map((row) => row.end)));
  const at = (tokens) => `${(100 * tokens) / deepest}%`;
  const kinds = new Set();
  let num = 0;
  const drawn = rows.map((row) => {
    const edge = make("span", "edge");
    edge.style.left = at(row.start);
    edge.style.width = at(row.end - row.start);
    const kv = make("span", "edge kept");
    kv.style.left = at(row.start);
    kv.style.width = at(Math.min(row.kv_tokens, row.end - row.start));
    const marks = marksOf(row).map((mark) => {
      kinds.add(mark.kind);
      const element = make("span", `mark ${mark.kind}`);
      element.style.left = at(mark.at);
      element.title = mark.words;
      return element;
    });
    num += row.num_checkpoints;
    const label = make("p", "label", make("span", "", (row.text && (row.depth ? "…" : "") + row.text) || `tokens ${count(row.start)} to ${count(row.end)}`));
    label.style.paddingInlineStart = `${0.9 * row.depth}rem`;
    const hidden = row.num_hidden ? make("small", "", ` and ${plural(row.num_hidden, "branch", "branches")} more`) : null;
    if (hidden) label.append(hidden);
    if (row.depth) label.prepend(make("i", "", "└ "));
    return make("div", "row", label, make("div", "track", edge, kv, ...marks));
  });
  const ticks = make("div", "ticks", ...[0, 0.25, 0.5, 0.75, 1].map((part) => make("span", "", short(part * deepest))));
  show("tree", ...drawn, make("div", "row axis", make("p", "label"), ticks));
  const words = `${plural(rows.length, "stretch", "stretches")} of prompts with ${plural(num, "checkpoint")}`;
  document.getElementById("tree").setAttribute("aria-label", `${words}, over ${short(deepest)} tokens`);
  const more = numHidden ? ` ${plural(numHidden, "prompt")} more ${numHidden === 1 ? "is" : "are"} not shown.` : "";
  show(
    "tree-reading",
    `Prompts that begin alike share a line until they part. A request resumes at the last mark before its own tokens begin.${more}`,
  );
  show(
    "tree-key",
    ...Object.entries(MARKS).filter(([kind]) => kinds.has(kind)).map(([, [kind, text]]) =>
      make("li", "", make("span", `mark ${kind}`), text)),
    make("li", "", make("span", "swatch kept"), "KV kept"),
    make("li", "", make("span", "swatch edge"), "tokens remembered"),
  );
  table(
    "tree-table",
    "Stretches of prompts, in tokens",
    ["Stretch", "From", "To", "Checkpoints at", "Bytes of states", "Elsewhere", "Lost at"],
    rows.map((row) => [
      row.text || "–", count(row.start), count(row.end),
      row.checkpoints.map((each) => count(each.position)).join("; ") || "–",
      bytes(row.checkpoints.reduce((sum, each) => sum + each.bytes, 0)),
      Object.entries(row.elsewhere).filter((each) => each[1].length).map(([tier, positions]) => `${tier}: ${positions.map(count).join("; ")}`).join(", ") || "–",
      row.lost.map(count).join("; ") || "–",
    ]),
  );
}

// The next number with one digit that is not zero.
function niceEnd(tokens) {
  const power = 10 ** Math.floor(Math.log10(tokens));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((each) => each * power).find((each) => each >= tokens);
}
