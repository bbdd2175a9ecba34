// The page: a snapshot comes, and every figure is drawn anew from it.

import { memory, overlaps, rate, recent, tokens } from "./figures.js";
import { tree } from "./tree.js";
import { count, make, plural, seconds, share, short, show } from "./words.js";

function say(state, words) {
  const element = document.getElementById("state");
  if (element.dataset.state === state && element.textContent === words) return;
  element.dataset.state = state;
  element.textContent = words;
}

function tiles(snapshot) {
  const cache = snapshot.prefix_cache;
  const facts = [
    ["of prompt tokens reused", share(cache.hits, cache.queries)],
    ["prompt tokens, of " + plural(cache.requests, "request"), short(cache.queries)],
    ["to the first token, the median of late", seconds(snapshot.speed.median_ttft_seconds)],
    ["tokens made a second, just now", short(snapshot.speed.generated_tokens_per_second)],
  ];
  show("tiles", ...facts.map(([label, value]) => make("div", "", make("dt", "", label), make("dd", "", value))));
}

function finding(snapshot) {
  const cache = snapshot.prefix_cache;
  const [cause, lost] = Object.entries(cache.recomputed).reduce((most, each) => (each[1] > most[1] ? each : most));
  const why = {
    unseen: "nobody had sent them before",
    alignment: "they lie after the last place a state can be",
    placement: "no state was put there",
    eviction: "the state had to make room",
    reset: "the cache was emptied, or the server restarted",
  };
  show(
    "finding",
    make("b", "", `${short(cache.hits)} of ${short(cache.queries)}`),
    " prompt tokens were not computed again",
    lost ? `; most of the others were, since ${why[cause]}.` : ".",
  );
}

function head(snapshot) {
  const server = snapshot.server;
  document.title = `${server.model} – Milepost`;
  show("model", server.model);
  const facts = Object.entries(server.facts).map(([name, value]) => (name === "family" || name === "numerics" ? value : `${name} ${value}`));
  const audits = snapshot.audits;
  if (audits.passed + audits.failed) {
    facts.push(audits.failed ? `${plural(audits.failed, "audit")} failed` : `${plural(audits.passed, "audit")} passed`);
  }
  show("facts", facts.join(" · "));
  const queue = snapshot.queue;
  show("queue", `${count(queue.running)} running, ${count(queue.waiting)} waiting`);
  if (server.stopped) say("stopped", server.stopped);
  else say("serving", "serving");
}

function curl(model) {
  const body = JSON.stringify({ model, messages: [{ role: "user", content: "Hello" }] });
  return `curl ${location.origin}/v1/chat/completions \\\n  -H 'content-type: application/json' \\\n  -d '${body}'`;
}

function draw(snapshot) {
  head(snapshot);
  const isEmpty = snapshot.prefix_cache.queries === 0 && snapshot.recent.length === 0;
  document.getElementById("empty").hidden = !isEmpty;
  document.getElementById("figures").hidden = isEmpty;
  document.getElementById("finding").hidden = snapshot.prefix_cache.queries === 0;
  if (isEmpty) {
    const line = curl(snapshot.server.model);
    const code = document.getElementById("curl");
    if (code.textContent !== line) code.textContent = line;
    return;
  }
  finding(snapshot);
  tiles(snapshot);
  tokens(snapshot.prefix_cache);
  tree(snapshot.tree);
  memory(snapshot.tiers);
  rate(snapshot.timeline);
  overlaps(snapshot.overlaps);
  recent(snapshot.recent);
}

let events = null;

function follow() {
  const followed = new EventSource("events");
  followed.onmessage = (event) => draw(JSON.parse(event.data));
  followed.onerror = () => {
    const isOver = followed.readyState === EventSource.CLOSED;
    say("lost", isOver ? "not told any more; load the page again" : "the server is not there; trying again");
  };
  return followed;
}

// A page that nobody sees asks for nothing, and leaves its connection to others.
function followWhileSeen() {
  if (document.hidden && events) {
    events.close();
    events = null;
  } else if (!document.hidden && !events) {
    events = follow();
  }
}

document.addEventListener("visibilitychange", followWhileSeen);
followWhileSeen();
