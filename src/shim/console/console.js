// The console: polls what the engine reports, shows one user's slate, and lets you act as that user. Every text goes in as
// text, never as markup; nothing is loaded from elsewhere.
"use strict";

const POLL_MS = 1000;
const SLATE_MS = 2000;
const SPAN_S = 10; // over which rates and quantiles are taken
const PAGE = 20;
const SOURCES = ["neighbours", "interests", "trending", "fresh", "popular", "history", "explored", "content", "towers"];
const TERMS = ["content", "collaborative", "real_time", "interests", "freshness"];
const VERBS = { like: "like", share: "share", hide: "hide" };

const at = (id) => document.getElementById(id);

/** Makes an element: tag, class, text. */
function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Where a token is asked for, the console is opened as /#token=<token>: what follows the # is sent to nobody. This tab keeps it. */
function bearer() {
  const given = /^#token=(.+)$/.exec(location.hash);
  if (given) {
    sessionStorage.setItem("token", decodeURIComponent(given[1]));
    history.replaceState(null, "", "#");
  }
  const token = sessionStorage.getItem("token");
  return token ? { authorization: `Bearer ${token}` } : {};
}

const BEARER = bearer();

function load(path, options = {}) {
  return fetch(path, { cache: "no-store", ...options, headers: { ...BEARER, ...options.headers } });
}

async function ask(path, options) {
  const answer = await load(path, options);
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.error ? body.error.message : answer.statusText), { status: answer.status });
  return body;
}

/* Engine: events a second, freshness, epoch. */

const samples = []; // {at, events, buckets: Map(le → count)} of the last seconds
const rates = []; // for the spark line
let stats = null;

/** Reads the counters and buckets we show from Prometheus text. */
function readMetrics(text) {
  const sample = { at: performance.now() / 1000, events: null, buckets: new Map() };
  for (const line of text.split("\n")) {
    if (line.startsWith("overdrive_events_total")) {
      sample.events = (sample.events || 0) + Number(line.slice(line.lastIndexOf(" ") + 1));
    } else if (line.startsWith("overdrive_freshness_seconds_bucket")) {
      const bound = /le="([^"]+)"/.exec(line);
      if (bound) sample.buckets.set(bound[1] === "+Inf" ? Infinity : Number(bound[1]), Number(line.slice(line.lastIndexOf(" ") + 1)));
    }
  }
  return sample;
}

/** The q-quantile in seconds of what was recorded between two samples, by straight lines inside a bucket; null without any. */
function quantile(from, to, q) {
  const bounds = [...to.buckets.keys()].sort((a, b) => a - b);
  const counts = bounds.map((bound) => to.buckets.get(bound) - (from.buckets.get(bound) || 0));
  const total = counts.length ? counts[counts.length - 1] : 0;
  if (!(total > 0)) return null;
  const rank = q * total;
  for (let i = 0; i < bounds.length; i++) {
    if (counts[i] < rank) continue;
    const low = i ? bounds[i - 1] : 0;
    const below = i ? counts[i - 1] : 0;
    if (!Number.isFinite(bounds[i])) return low;
    return low + (bounds[i] - low) * ((rank - below) / Math.max(1, counts[i] - below));
  }
  return null;
}

function figure(id, value, unit) {
  const place = at(id);
  place.textContent = value;
  if (unit) place.append(make("small", "", unit));
}

function showDuration(id, seconds) {
  if (seconds === null) return figure(id, "–");
  if (seconds < 1) return figure(id, (seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0), "ms");
  figure(id, seconds.toFixed(1), "s");
}

function spark() {
  const top = Math.max(...rates, 1);
  const points = rates.map((rate, i) => `${((i * 120) / Math.max(1, rates.length - 1)).toFixed(1)},${(26 - (24 * rate) / top).toFixed(1)}`);
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", points.length > 1 ? "M" + points.join("L") : "");
  at("spark").replaceChildren(path);
}

function showMetrics(sample) {
  samples.push(sample);
  while (samples.length > 2 && sample.at - samples[0].at > SPAN_S) samples.shift();
  const first = samples[0];
  if (sample.events === null) {
    figure("rate", "–");
    at("p99-note").textContent = "measured where the engine runs";
    return;
  }
  if (samples.length > 1) {
    const last = samples[samples.length - 2];
    const rate = Math.max(0, (sample.events - (last.events || 0)) / (sample.at - last.at));
    const steady = Math.max(0, (sample.events - (first.events || 0)) / (sample.at - first.at));
    rates.push(rate);
    if (rates.length > 60) rates.shift();
    figure("rate", Math.round(steady).toLocaleString("en"));
    spark();
    showDuration("p50", quantile(first, sample, 0.5));
    showDuration("p99", quantile(first, sample, 0.99));
    at("p99-note").textContent = "last 10 seconds";
  }
}

function duration(ms) {
  const s = Math.abs(ms) / 1000;
  if (s < 10) return `${Math.round(ms)} ms`;
  if (s < 600) return `${Math.round(s)} s`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} days`;
}

function showStats(next) {
  stats = next;
  figure("epoch", next.epoch.toLocaleString("en"));
  at("lag").textContent = next.epoch ? `clock ${duration(next.lag_ms)} behind` : "none yet";
  const keys = next.keys ? Object.values(next.keys).reduce((sum, n) => sum + n, 0) : null;
  const held = keys === null ? "" : ` · ${keys.toLocaleString("en")} keys`;
  state(next.epoch ? "ok" : "wait", next.epoch ? `${next.store}${held}` : "waiting for the first epoch");
  showUsers(next.recent_users);
}

function state(kind, text) {
  at("state").dataset.state = kind;
  if (at("state-text").textContent !== text) at("state-text").textContent = text;
}

async function pollEngine() {
  try {
    const [next, text] = await Promise.all([ask("/v1/stats"), load("/metrics").then((a) => a.text())]);
    showStats(next);
    showMetrics(readMetrics(text));
  } catch (error) {
    state("away", error.status ? error.message : "the shim does not answer");
  }
}

async function pollTrending() {
  try {
    const { items } = await ask("/v1/trending/global?k=12");
    const rows = items.map((item) => {
      const row = make("li");
      row.append(make("span", "id", item.item_id), make("b", "", item.score.toFixed(1)));
      return row;
    });
    at("trending").replaceChildren(...(rows.length ? rows : [make("li", "empty", "nothing yet")]));
  } catch {
    // The state line says so already; the last list stays.
  }
}

/* Experiments: each arm's rate, its interval, and how far it is from the first arm. */

const percent = (part) => `${(part * 100).toFixed(2)} %`;
const signed = (part) => (part < 0 ? "−" : "+") + (Math.abs(part) * 100).toFixed(2);

function between(estimate, show) {
  return estimate.interval ? `${show(estimate.interval[0])} to ${show(estimate.interval[1])}` : "too few users to say";
}

/** For whom it is, where it is not for everybody. */
function whom({ languages, cities, interests, users }) {
  const lists = [["speaking", languages], ["in", cities], ["interested in", interests]];
  const given = lists.filter(([, names]) => names.length).map(([how, names]) => `${how} ${names.join(" or ")}`);
  if (users !== null) given.push(`of ${users.toLocaleString("en")} named`);
  return `for users ${given.join(", ")}`;
}

function trial(experiment) {
  const box = make("div", "trial");
  box.append(make("h3", "", `${experiment.name} · ${(experiment.rollout * 100).toFixed(0)} % of ${experiment.cohort ? "these users" : "users"}`));
  if (experiment.cohort) box.append(make("p", "note", whom(experiment.cohort)));
  const rows = experiment.arms.map((arm) => {
    const row = make("li");
    const head = make("p");
    head.append(make("span", "", `${arm.name} (${arm.ranks})`), make("b", "", arm.ctr ? percent(arm.ctr.value) : "no impressions"));
    row.append(head);
    const users = `${arm.users.toLocaleString("en")} users`;
    const seconds = arm.engagement_seconds ? ` · ${arm.engagement_seconds.value.toFixed(1)} s each` : "";
    row.append(make("p", "note", `${arm.ctr ? between(arm.ctr, percent) + " · " : ""}${users}${seconds}`));
    if (arm.verdict) {
      const far = arm.ctr && arm.ctr.difference ? `: ${between(arm.ctr.difference, signed)} points` : "";
      const verdict = make("p", "note", `${arm.verdict}${far}`);
      verdict.dataset.verdict = arm.verdict;
      row.append(verdict);
    }
    return row;
  });
  const list = make("ul");
  list.append(...rows);
  box.append(list);
  return box;
}

async function pollExperiments() {
  try {
    const { experiments } = await ask("/v1/experiments");
    at("experiments-panel").hidden = experiments.length === 0;
    at("experiments").replaceChildren(...experiments.map(trial));
  } catch {
    // The state line says so already; what was shown stays.
  }
}

/* What ranks, what could, and how training stands. */

function version(model) {
  const row = make("li");
  const head = make("p");
  head.append(make("span", "", model.name), make("b", "", model.serves ? "ranks" : ""));
  row.append(head);
  if (model.unusable) row.append(make("p", "note", model.unusable));
  if (!model.figures) return row;
  const { ndcg_10: ndcg, auc, examples } = model.figures;
  const ahead = ndcg.ahead.map((bound) => (bound < 0 ? "−" : "+") + Math.abs(bound).toFixed(3)).join(" to ");
  row.append(make("p", "note", `NDCG@10 ${ndcg.model.toFixed(3)}, the blend's ${ndcg.blend.toFixed(3)} (${ahead})`));
  const known = auc.model === null ? "" : ` · AUC ${auc.model.toFixed(3)}`;
  row.append(make("p", "note", `on ${examples.held_out.toLocaleString("en")} examples after its training${known}`));
  return row;
}

/** What is done now, else what came of the last time, else when the next is. */
function trained({ running, last, next_ms: next }) {
  if (running) return `${running.model} is being trained: ${running.what}`;
  if (last) return `${last.version || last.model}: ${last.promoted ? "promoted" : last.version ? "not promoted" : "failed"}, ${last.why}`;
  return next ? `the first training begins at ${new Date(next).toLocaleTimeString()}` : "nothing was trained yet";
}

async function pollModels() {
  try {
    const { serving, versions, training } = await ask("/v1/models");
    at("models-panel").hidden = versions.length === 0 && !training.enabled;
    at("models-note").textContent = `${serving} ranks${training.enabled || training.last ? " · " + trained(training) : ""}`;
    at("training").hidden = !training.running;
    if (training.running) at("training").value = training.running.done;
    at("versions").replaceChildren(...versions.slice(-3).reverse().map(version));
  } catch {
    // The state line says so already; what was shown stays.
  }
}

/* One user's slate. */

let user = "";
let shown = []; // items of the slate on the page, in order
let depth = PAGE;
let acting = false;
let ticket = 0; // the latest request; older answers are dropped

function showUsers(recent) {
  const now = recent.slice(0, 8);
  if (user && !now.includes(user)) now.unshift(user);
  const known = [...at("chips").children].map((chip) => chip.textContent);
  if (known.length === now.length && known.every((name) => now.includes(name))) return;
  const chips = now.map((name) => {
    const chip = make("button", "", name);
    chip.type = "button";
    chip.setAttribute("aria-pressed", String(name === user));
    chip.addEventListener("click", () => choose(name));
    return chip;
  });
  // Not under the finger or the focus of somebody who is choosing.
  if (at("chips").contains(document.activeElement) || at("chips").matches(":hover")) return;
  at("chips").replaceChildren(...chips);
  at("users").replaceChildren(...recent.map((name) => Object.assign(make("option"), { value: name })));
  if (!user && recent.length) choose(recent[0]);
}

function choose(name) {
  user = name.trim();
  if (!user) return;
  at("user").value = user;
  for (const chip of at("chips").children) chip.setAttribute("aria-pressed", String(chip.textContent === user));
  history.replaceState(null, "", "#" + encodeURIComponent(user));
  [shown, depth] = [[], PAGE];
  at("effect").hidden = true;
  loadSlate(null);
  loadInterests(null);
}

const headers = (token) => (token ? { headers: { "x-overdrive-token": token } } : {});
const path = (id) => encodeURIComponent(id);

/** Fetches the slate and shows it; with `cause`, what changed is told as its effect. Whether it was shown. */
async function loadSlate(token, cause) {
  const mine = ++ticket;
  const whose = user;
  try {
    const feed = await ask(`/v1/feeds/home/${path(whose)}?k=${depth}&explain=true`, headers(token));
    if (mine !== ticket || whose !== user) return false;
    showSlate(feed, cause);
    return true;
  } catch (error) {
    if (mine === ticket) note(error.message, "bad");
    return false;
  }
}

function note(text, tone) {
  at("slate-note").textContent = text;
  at("slate-note").dataset.tone = tone || "";
}

function showSlate(feed, cause) {
  describe(feed);
  const same = feed.items.length === shown.length && feed.items.every((item, place) => item.item_id === shown[place]);
  // What was marked stays marked until the next change.
  if (same && !cause && shown.length) return;
  const before = new Map(shown.map((id, place) => [id, place]));
  const now = new Set(feed.items.map((item) => item.item_id));
  const gone = shown.filter((id) => !now.has(id));
  const entered = shown.length ? feed.items.filter((item) => !before.has(item.item_id)) : [];
  const moved = (item, place) => (before.has(item.item_id) ? before.get(item.item_id) - place : null);
  const rows = feed.items.map((item, place) => row(item, place, shown.length ? moved(item, place) : 0));
  const focus = focused();
  at("items").replaceChildren(...rows);
  restore(focus);
  shown = feed.items.map((item) => item.item_id);
  if (cause || entered.length || gone.length) effect(cause, entered.length, gone, feed.stale);
  showSources(feed.items);
}

/** Says what is shown and how old it is. */
function describe(feed) {
  const age = new Date(feed.as_of).toISOString().replace("T", " ").slice(0, 19);
  const kind = feed.fallback ? `No slate of their own yet: what is ${feed.model === "fresh" ? "new" : feed.model}.` : `Ordered by ${feed.model}${feed.variant ? ` (${feed.experiment}: ${feed.variant})` : ""}.`;
  note(`${kind} As of ${age} UTC, epoch ${feed.epoch.toLocaleString("en")}.${feed.stale ? " Stale: your write is not in it yet." : ""}`, feed.stale ? "warn" : "");
  at("more").hidden = !feed.cursor || depth >= 100;
  at("key").hidden = !feed.items.some((item) => item.terms && Object.keys(item.terms).length);
}

function effect(cause, entered, gone, stale) {
  const strong = make("strong", "", cause ? cause.text : "The slate changed");
  const took = cause && !stale ? ` visible after ${Math.round(cause.ms)} ms` : "";
  const change = entered || gone.length ? `${entered} entered, ${gone.length} left` : "order only";
  at("effect-text").replaceChildren(strong, document.createTextNode(`${took}: ${change}.`));
  at("left").replaceChildren(...gone.slice(0, 12).map((id) => make("li", "", id)));
  at("effect").hidden = false;
}

function row(item, place, moved) {
  const row = at("row").content.firstElementChild.cloneNode(true);
  const part = (name) => row.querySelector("." + name);
  row.dataset.item = item.item_id;
  row.dataset.source = item.source;
  part("rank").textContent = place + 1;
  part("id").textContent = item.item_id;
  part("source").textContent = item.source;
  part("reason").textContent = item.reason;
  part("score").textContent = item.score.toFixed(3);
  if (moved === null) {
    row.classList.add("entered");
    part("mark").textContent = "entered";
  } else if (moved) {
    part("mark").textContent = moved > 0 ? `▲ ${moved}` : `▼ ${-moved}`;
  }
  showTerms(part("terms"), item.terms || {});
  for (const button of row.querySelectorAll("[data-act]")) {
    button.setAttribute("aria-label", `${button.textContent} ${item.item_id} as ${user}`);
    button.addEventListener("click", () => act(button.dataset.act, item.item_id));
    if (acting) wait(button);
  }
  part("acts").setAttribute("aria-label", "Act as this user");
  return row;
}

function showTerms(place, terms) {
  const names = TERMS.filter((name) => name in terms);
  const words = names.map((name) => `${name.replace("_", " ")} ${terms[name].toFixed(2)}`);
  place.setAttribute("aria-label", words.length ? words.join(", ") : "no terms");
  place.title = words.join("\n");
  const bars = names.map((name) => {
    const bar = make("i");
    const fill = bar.appendChild(make("b"));
    fill.style.height = `${Math.min(100, 100 * terms[name])}%`;
    return bar;
  });
  place.replaceChildren(...bars);
}

/** Which button had the focus, so that a redraw does not take it away. */
function focused() {
  const button = document.activeElement;
  const row = button && button.closest ? button.closest(".item") : null;
  return row ? { item: row.dataset.item, act: button.dataset.act } : null;
}

function restore(focus) {
  if (!focus) return;
  const row = [...at("items").children].find((row) => row.dataset.item === focus.item) || at("items").firstElementChild;
  const button = row && row.querySelector(`[data-act="${focus.act}"]`);
  if (button) button.focus({ preventScroll: true });
}

function showSources(items) {
  const counts = SOURCES.map((source) => [source, items.filter((item) => item.source === source).length]).filter(([, n]) => n);
  const total = counts.reduce((sum, [, n]) => sum + n, 0) || 1;
  const share = (n) => `${Math.round((100 * n) / total)} %`;
  at("stack").replaceChildren(...counts.map(([source, n]) => {
    const part = make("i");
    part.dataset.source = source;
    part.style.flexGrow = n;
    return part;
  }));
  at("stack").setAttribute("aria-label", counts.map(([source, n]) => `${source} ${share(n)}`).join(", ") || "no slate");
  at("legend").replaceChildren(...counts.map(([source, n]) => {
    const line = make("li");
    const name = line.appendChild(make("span", "", source));
    name.dataset.source = source;
    line.append(make("b", "", share(n)));
    return line;
  }));
}

async function loadInterests(token) {
  const whose = user;
  let rows;
  let drift = "of the user shown";
  try {
    const found = await ask(`/v1/users/${path(whose)}/interests`, headers(token));
    const tokens = [...new Set([...Object.keys(found.long), ...Object.keys(found.short)])];
    const weight = (name) => Math.max(found.long[name] || 0, found.short[name] || 0);
    tokens.sort((a, b) => weight(b) - weight(a));
    rows = tokens.slice(0, 8).map((name) => interest(name, found.long[name] || 0, found.short[name] || 0));
    drift = `last days above, last hour below; drift ${found.drift.toFixed(2)}`;
  } catch (error) {
    rows = [make("li", "empty", error.status === 404 ? "none known yet" : error.message)];
  }
  if (whose !== user) return;
  at("drift").textContent = drift;
  at("interests").replaceChildren(...rows);
}

function interest(name, long, short) {
  const line = make("li");
  const head = line.appendChild(make("p"));
  head.append(make("span", "", name.replace(":", " · ")), make("b", "", `${(100 * long).toFixed(0)} / ${(100 * short).toFixed(0)} %`));
  for (const weight of [long, short]) {
    const track = line.appendChild(make("div", "track"));
    track.appendChild(make("i")).style.width = `${Math.min(100, 100 * weight)}%`;
  }
  return line;
}

/* Acting as the user. */

/** The event's time: now, or the engine's clock where a recorded stream is being replayed. */
function moment() {
  const behind = stats ? stats.lag_ms : 0;
  return Math.abs(behind) > 300000 ? stats.as_of : Date.now();
}

/** Not `disabled`: that would take the focus away from who works with the keyboard. */
function wait(button) {
  button.setAttribute("aria-disabled", "true");
}

async function act(kind, item) {
  if (acting) return;
  acting = true;
  for (const button of at("items").querySelectorAll("[data-act]")) wait(button);
  const begun = performance.now();
  const event = { type: VERBS[kind], user_id: user, item_id: item, ts: moment(), event_id: `console-${Date.now()}-${Math.random().toString(36).slice(2)}` };
  try {
    const receipt = await ask("/v1/events", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(event) });
    if (!receipt.accepted) throw new Error(receipt.rejected[0].reason);
    acting = false;
    const cause = { text: `${kind} ${item}`, get ms() { return performance.now() - begun; } };
    await loadSlate(receipt.token, cause);
    loadInterests(receipt.token);
  } catch (error) {
    note(`${kind} was not taken: ${error.message}`, "bad");
  } finally {
    acting = false;
    for (const button of at("items").querySelectorAll("[data-act]")) button.removeAttribute("aria-disabled");
  }
}

/* Start. */

at("pick").addEventListener("submit", (event) => {
  event.preventDefault();
  choose(at("user").value);
});
at("more").addEventListener("click", () => {
  depth += PAGE;
  shown = [];
  loadSlate(null);
});

/** Runs a task again and again, never twice at once, and not while the page is hidden. */
async function every(ms, task) {
  for (;;) {
    if (!document.hidden) await task();
    await new Promise((done) => setTimeout(done, ms));
  }
}

if (location.hash.length > 1) {
  try {
    choose(decodeURIComponent(location.hash.slice(1)));
  } catch {
    // A hash that is no encoding names no user.
  }
}
every(POLL_MS, pollEngine);
every(POLL_MS * 2, pollTrending);
every(POLL_MS * 5, pollExperiments);
every(POLL_MS * 3, pollModels);
every(SLATE_MS, async () => {
  const resting = !acting && user && !at("items").matches(":hover") && !at("items").contains(document.activeElement);
  if (resting) await loadSlate(null);
});
