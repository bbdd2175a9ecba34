// Each figure from its part of the snapshot, with the table behind it.

import { CAUSES, bytes, count, draw, make, plural, seconds, share, short, show, table } from "./words.js";

// A bar of parts: [class, amount, label]; what is left of the whole stays empty.
function bar(className, parts, whole) {
  const element = make("div", `bar ${className}`);
  for (const [name, amount, label] of parts) {
    if (!amount) continue;
    const part = make("span", name);
    part.style.width = `${(100 * amount) / whole}%`;
    part.title = label;
    element.append(part);
  }
  return element;
}

const key = (name, ...words) => make("li", "", make("span", `swatch ${name}`), ...words);

function partsOf(reused, recomputed) {
  return [["reused", reused], ...Object.entries(recomputed)].map(([name, amount]) => [
    name,
    amount,
    `${CAUSES[name]}: ${plural(amount, "token")}`,
  ]);
}

export function tokens(cache) {
  const parts = partsOf(cache.hits, cache.recomputed);
  const figure = document.getElementById("tokens");
  figure.replaceChildren(...bar("", parts, cache.queries || 1).children);
  figure.setAttribute("aria-label", parts.map((each) => each[2]).join("; "));
  const told = parts.filter(([name, amount]) => amount || name === "reused");
  show(
    "tokens-key",
    ...told.map(([name, amount]) =>
      key(name, make("b", "", share(amount, cache.queries)), ` ${CAUSES[name]} `, make("i", "", short(amount))),
    ),
  );
}

export function memory(tiers) {
  show(
    "memory",
    ...tiers.map((tier) => {
      const held = tier.state_bytes + tier.kv_bytes;
      const parts = [
        ["states", tier.state_bytes, `states: ${bytes(tier.state_bytes)}`],
        ["kv", tier.kv_bytes, `KV: ${bytes(tier.kv_bytes)}`],
      ];
      const drawn = bar("tall", parts, Math.max(tier.capacity_bytes, held, 1));
      drawn.setAttribute("role", "img");
      drawn.setAttribute("aria-label", `${tier.name}: ${parts.map((each) => each[2]).join(", ")}`);
      const words = [
        plural(tier.checkpoints, "checkpoint"),
        plural(tier.evictions, "eviction"),
        `${short(tier.cached_tokens)} tokens reused`,
        priced(tier.tokens_saved_per_megabyte),
      ];
      return make(
        "div",
        "tier",
        make("p", "", make("b", "", tier.name), ` ${bytes(held)} of ${bytes(tier.capacity_bytes)}`),
        drawn,
        make("p", "muted", words.filter(Boolean).join(" · ")),
      );
    }),
  );
  show("memory-key", key("states", "states"), key("kv", "KV"), key("free", "free"));
  table(
    "memory-table",
    "What each tier holds and was good for",
    ["Tier", "States", "KV", "Capacity", "Takes there", "Checkpoints", "Evictions", "Tokens reused", "Fetched", "Damaged", "Price of a byte"],
    tiers.map((tier) => [
      tier.name, bytes(tier.state_bytes), bytes(tier.kv_bytes), bytes(tier.capacity_bytes),
      bytes(tier.stored_bytes), count(tier.checkpoints), count(tier.evictions), count(tier.cached_tokens),
      bytes(tier.fetched_bytes), count(tier.damaged),
      tier.price_of_a_byte === null ? "–" : tier.price_of_a_byte.toPrecision(3),
    ]),
  );
}

// What a megabyte saves a request says more than a byte's worth, which is tiny.
function priced(tokens) {
  if (tokens === null) return null;
  return tokens ? `a MB saves a request ${Number(tokens.toPrecision(2)).toLocaleString("en")} tokens` : "a byte costs nothing: there is room";
}

const WIDTH = 600;
const HEIGHT = 150;

export function rate(timeline) {
  const last = 120;
  const points = timeline.bins.map((bin) => [
    WIDTH * (1 - bin.bins_ago / (last - 1)),
    HEIGHT * (1 - bin.hits / bin.queries),
    bin,
  ]);
  const marks = points.map(([x, y, bin]) =>
    draw("circle", { cx: x, cy: y, r: 3.2 }, draw("title", {}, `${share(bin.hits, bin.queries)} of ${plural(bin.queries, "token")}`)),
  );
  const lines = [0, 0.5, 1].map((level) =>
    draw("line", { x1: 0, x2: WIDTH, y1: HEIGHT * (1 - level), y2: HEIGHT * (1 - level), class: "rule" }),
  );
  const path = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  const area = points.length
    ? draw("polygon", { points: `${points[0][0]},${HEIGHT} ${path} ${points.at(-1)[0]},${HEIGHT}`, class: "area" })
    : "";
  const svg = draw(
    "svg",
    { viewBox: `-4 -6 ${WIDTH + 8} ${HEIGHT + 12}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    ...lines, area, draw("polyline", { points: path, class: "line" }), ...marks,
  );
  const levels = make("div", "levels", make("span", "", "100 %"), make("span", "", "50 %"), make("span", "", "0 %"));
  const times = make("div", "times", make("span", "", "ten minutes ago"), make("span", "", "now"));
  show("rate", levels, make("div", "", svg, times));
  const queries = timeline.bins.reduce((sum, bin) => sum + bin.queries, 0);
  const hits = timeline.bins.reduce((sum, bin) => sum + bin.hits, 0);
  const figure = document.getElementById("rate");
  figure.setAttribute("aria-label", `${share(hits, queries)} of ${plural(queries, "prompt token")} of the last ten minutes`);
  table(
    "rate-table",
    "Prompt tokens of answers that ended",
    ["Seconds ago", "Prompt tokens", "Reused", "Share"],
    timeline.bins.toReversed().map((bin) => [
      count(bin.bins_ago * timeline.bin_seconds), count(bin.queries), count(bin.hits), share(bin.hits, bin.queries),
    ]),
  );
}

export function overlaps(learned) {
  document.getElementById("overlap").hidden = !learned || !learned.num_shared;
  if (!learned || !learned.num_shared) return;
  show(
    "overlap-reading",
    `Of ${plural(learned.num_shared, "request")} that shared a beginning with an earlier one, how far the two went on together: ` +
      "counted from the start where a system prompt is shared, from the end where a conversation goes on.",
  );
  show(
    "overlaps",
    ...learned.coordinates.map((coordinate) => {
      const used = coordinate.bins.findLastIndex((bin) => bin.share >= 0.005);
      const bins = coordinate.bins.slice(0, Math.max(6, used + 1));
      const most = Math.max(...bins.map((bin) => bin.share), 0.01);
      const columns = bins.map((bin, index) => {
        const column = make("span", "column", make("span", "known"));
        column.firstChild.style.height = `${(100 * bin.share) / most}%`;
        column.title = `${binName(bins, index)} tokens: ${Math.round(100 * bin.share)} %`;
        return make("div", "", column, make("small", index % 2 ? "between" : "", short(bin.from_tokens)));
      });
      const drawn = make("div", "columns", ...columns);
      drawn.setAttribute("role", "img");
      const peak = bins.findIndex((bin) => bin.share === most);
      drawn.setAttribute("aria-label", `Tokens ${coordinate.name}; most end at ${peak < 0 ? "no place yet" : binName(bins, peak)}`);
      return make("div", "", make("h3", "", `Tokens ${coordinate.name}`, make("i", "", ` explains ${Math.round(100 * coordinate.share)} %`)), drawn);
    }),
  );
  const [start, end] = learned.coordinates;
  table(
    "overlap-table",
    "Share of the overlaps that end in each range of tokens",
    ["Tokens", ...learned.coordinates.map((each) => each.name)],
    start.bins.map((bin, index) => [
      binName(start.bins, index),
      ...[start, end].map((each) => `${Math.round(1000 * each.bins[index].share) / 10} %`),
    ]),
  );
}

function binName(bins, index) {
  const next = bins[index + 1];
  return next ? `${count(bins[index].from_tokens)} to ${count(next.from_tokens - 1)}` : `${count(bins[index].from_tokens)} and more`;
}

export function recent(records) {
  const columns = ["Request", "Prompt", "Where its tokens went", "First token", "In all", "Answer", "Ended"];
  const rows = records.map((record) => {
    const cached = Object.values(record.cached_tokens).reduce((sum, each) => sum + each, 0);
    const parts = partsOf(cached, record.recomputed);
    const told = parts.filter((each) => each[1]);
    const drawn = bar("small", parts, Math.max(1, told.reduce((sum, each) => sum + each[1], 0)));
    drawn.setAttribute("role", "img");
    drawn.setAttribute("aria-label", told.map((each) => each[2]).join("; ") || "nothing was computed");
    const by = Object.entries(record.cached_tokens).filter((each) => each[1]);
    const words = [
      ...by.map(([tier, amount]) => `${short(amount)} from ${tier}`),
      ...Object.entries(record.recomputed).filter((each) => each[1]).map(([cause, amount]) => `${short(amount)} ${cause}`),
    ];
    const isRefused = record.status >= 400;
    return [
      make("span", "request", new Date(1000 * record.at).toLocaleTimeString("en-GB"), make("small", "", record.path)),
      count(record.prompt_tokens),
      make("div", "went", drawn, make("small", "", words.join(", "))),
      seconds(record.ttft_seconds),
      seconds(record.total_seconds),
      count(record.generated_tokens),
      isRefused ? make("b", "refused", `refused: ${record.status}`) : [...new Set(record.finish_reasons)].join(", "),
    ];
  });
  table("recent", "The newest first", columns, rows);
}
