// Devices, plan, events and compared runs, in words and figures.

import { byId, el, fill, row, say } from "./dom.js";
import { age, amount, DASH, number, percent, plural, seconds, signed } from "./format.js";
import { best, metricOf, metricTitle } from "./metric.js";
import { PHASES } from "./timeline.js";

const sum = (phases) => (phases ? Object.values(phases).reduce((a, b) => a + b, 0) : null);
const profile = (name) => (device) => device.profile?.[name];
const compute = (name) => (device) => device.profile?.compute?.[name];
const link = (name) => (device) => device.profile?.link?.[name];
const older = (device, name) =>
  device[name] === null || device[name] === undefined ? null : device[name] + (Date.now() / 1000 - device.heard_s);

// Title, value to sort by, text; `live`: known only of a site that is watched.
const COLUMNS = [
  ["device", (device) => device.device, (value) => value],
  ["state", (device) => device.state, (value) => value ?? DASH, { live: true }],
  ["phase", (device) => device.phase, (value) => value ?? DASH, { live: true }],
  ["engine", (device) => device.engine, (value) => value ?? DASH, { live: true }],
  ["cluster", (device) => (device.cluster === null ? null : device.cluster + 1), (value) => value ?? DASH],
  ["of link", (device) => device.share, (value) => percent(value, 0)],
  ["forward", compute("forward_flop_per_s"), (value) => amount(value, "FLOP/s"), { live: true }],
  ["backward", compute("backward_flop_per_s"), (value) => amount(value, "FLOP/s"), { live: true }],
  ["up", link("up_bps"), (value) => amount(value, "bit/s"), { live: true }],
  ["down", link("down_bps"), (value) => amount(value, "bit/s"), { live: true }],
  ["round trip", link("round_trip_s"), seconds, { live: true }],
  ["memory free", profile("free_memory_bytes"), (value) => amount(value, "B"), { live: true }],
  ["load", profile("load_fraction"), (value) => percent(value, 0), { live: true }],
  ["°C", profile("temperature_c"), (value) => number(value, 0), { live: true }],
  ["epoch predicted", (device) => sum(device.predicted), seconds],
  ["epoch took", (device) => sum(device.measured), seconds],
  ["heard", (device) => older(device, "facts_age_s"), (value) => (value === null ? DASH : `${age(value)} ago`), { live: true }],
  ["remark", remark, (value) => value ?? "", { words: true }],
];

// Why it is stale or left out, and the settings by topic that hold or that it refuses.
function remark(device) {
  const { applied = {}, refused = {} } = device.profile?.settings ?? {};
  const holding = Object.entries(applied).map(([name, value]) => `${name} = ${value}`);
  return [device.why, ...holding, ...Object.values(refused)].filter(Boolean).join("; ") || null;
}

export class DeviceTable {
  constructor({ live }) {
    this.columns = COLUMNS.filter(([, , , options]) => live || !options?.live);
    this.devices = new Map();
    this.rows = new Map();
    this.sortBy = 0;
    this.rising = true;
    fill(byId("devices-table").tHead, [row(this.columns.map(([title, , , options], index) => {
      const button = el("button", { type: "button" }, title);
      button.addEventListener("click", () => this.sort(index));
      return el("th", { scope: "col", class: options?.words ? "words" : null, "aria-sort": index === 0 ? "ascending" : null }, button);
    }))]);
    byId("find").addEventListener("input", () => this.order());
    if (live) setInterval(() => this.draw([...this.devices.values()]), 5000);
  }

  // Takes devices that changed; null for one that is gone.
  update(changes) {
    for (const [name, device] of changes) {
      if (device) this.devices.set(name, device);
      else {
        this.devices.delete(name);
        this.rows.get(name)?.remove();
        this.rows.delete(name);
      }
    }
    this.draw(changes.map(([, device]) => device).filter(Boolean));
    this.order();
  }

  draw(devices) {
    for (const device of devices) {
      if (!this.rows.has(device.device)) {
        this.rows.set(device.device, row(this.columns.map((_, index) =>
          (index ? el("td") : el("th", { scope: "row", class: "name" })))));
      }
      const cells = this.rows.get(device.device).cells;
      this.columns.forEach(([title, value, text, options], index) => {
        say(cells[index], String(text(value(device) ?? null)));
        if (title === "state" || title === "phase") cells[index].className = value(device) ?? "";
        if (options?.words) cells[index].className = "words";
      });
    }
  }

  sort(index) {
    this.rising = this.sortBy === index ? !this.rising : true;
    this.sortBy = index;
    [...byId("devices-table").tHead.rows[0].cells].forEach((cell, at) => {
      if (at === index) cell.setAttribute("aria-sort", this.rising ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    });
    this.order();
  }

  order() {
    const wanted = byId("find").value.trim().toLowerCase();
    const value = this.columns[this.sortBy][1];
    const shown = [...this.devices.values()].filter((device) => !wanted || this.text(device).includes(wanted));
    shown.sort((a, b) => compared(value(a), value(b), this.rising) || compared(a.device, b.device, true));
    const body = byId("devices-table").tBodies[0];
    const nodes = shown.map((device) => this.rows.get(device.device));
    if (nodes.length !== body.rows.length || nodes.some((node, index) => node !== body.rows[index])) {
      const focused = document.activeElement;
      fill(body, nodes);
      if (focused?.isConnected) focused.focus({ preventScroll: true });
    }
    const all = this.devices.size;
    say(byId("devices-count"), shown.length === all ? plural(all, "device") : `${shown.length} of ${plural(all, "device")}`);
  }

  text(device) {
    return [device.device, device.state, device.phase, device.engine, device.why].join(" ").toLowerCase();
  }
}

function compared(a, b, rising) {
  const unknown = (value) => value === null || value === undefined || value === "";
  if (unknown(a) || unknown(b)) return unknown(a) - unknown(b); // What is not known stands last.
  const order = typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return rising ? order : -order;
}

export function showNow(figures) {
  const present = figures.filter(Boolean);
  const list = byId("now");
  if (list.children.length !== present.length
    || present.some(([title], index) => list.children[index].firstChild.textContent !== title)) {
    fill(list, present.map(([title]) => el("div", {}, el("dt", {}, title), el("dd", {}, el("span"), el("small")))));
  }
  present.forEach(([, value, remark], index) => {
    const [shown, small] = list.children[index].lastChild.children;
    say(shown, value);
    say(small, remark ?? "");
  });
}

export function showPlan(plan, round, evaluatedPhases) {
  const text = byId("plan-text");
  if (!plan) {
    fill(text, [el("dt", {}, "plan"), el("dd", {}, "none yet")]);
    return;
  }
  const entries = {
    round: plan.round,
    what: `${plan.method}, cut after ${cutWords(plan)}, ${plural(plan.clusters.length, "cluster")}`
      + (plan.predicted_s === null ? "" : `, ${seconds(plan.predicted_s)} predicted`),
    why: plan.reason, changed: plan.changed, otherwise: otherwise(plan),
    assumed: listed(plan.assumed), "left out": listed(plan.left_out),
  };
  fill(text, Object.entries(entries).filter(([, value]) => value)
    .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  const chosen = [["micro-batches", ({ micro_batches: count }) => count ?? 1, 1], ["phi", ({ phi }) => phi ?? 0, 0]]
    .filter(([, of, usual]) => plan.clusters.some((cluster) => of(cluster) !== usual));
  tabulated("clusters-table", ["cluster", "devices", "predicted", ...chosen.map(([name]) => name), "who and share"],
    plan.clusters.map((cluster, index) => [index + 1, cluster.devices.length, seconds(cluster.predicted_s),
      ...chosen.map(([, of]) => of(cluster)),
      el("td", { class: "words" }, cluster.devices.map((device, at) =>
        device + (cluster.shares[at] === undefined ? "" : ` ${percent(cluster.shares[at], 0)}`)
        + (cluster.batch_sizes ? ` with ${plural(cluster.batch_sizes[at], "sample")}` : "")
        + (cluster.cut_layers ? ` after ${cluster.cut_layers[at]}` : "")).join(", "))]));
  const cuts = plan.alternatives?.cuts ?? [];
  tabulated("cuts-table", ["cut after", "a round takes"], cuts.map((cut) =>
    [cut.cut_layer, cut.round_s === null ? cut.infeasible || "cannot be used" : seconds(cut.round_s)]));
  const rows = [["predicted", plan.predicted], ["measured", evaluatedPhases]]
    .map(([name, phases]) => [name, Object.values(phases ?? {})]).filter(([, phases]) => phases.length);
  tabulated("phases-table", ["seconds", ...PHASES.map(([, name]) => name)], rows.map(([name, phases]) =>
    [name, ...PHASES.map(([phase]) => seconds(phases.reduce((total, each) => total + each[`${phase}_s`], 0) / phases.length))]));
}

/** The last layer on the devices, and how many of them have another. */
function cutWords(plan) {
  const counts = new Map();
  for (const layer of plan.clusters.flatMap((cluster) => cluster.cut_layers ?? [])) {
    if (layer !== plan.cut_layer) counts.set(layer, (counts.get(layer) ?? 0) + 1);
  }
  const others = [...counts].map(([layer, count]) => `${count} after ${layer}`).join(", ");
  return plan.cut_layer + (others ? ` (${others})` : "");
}

const listed = (reasons) => Object.entries(reasons ?? {}).map(([device, why]) => `${device}: ${why}`).join("; ");

function otherwise(plan) {
  const other = plan.alternatives;
  if (!other) return "";
  const isSharedOut = plan.clusters.some(({ batch_sizes }) => batch_sizes);
  const ways = [
    `${seconds(other.random_clusters_s)} with random clusters`,
    `${seconds(other.random_equal_shares_s)} with equal shares too`,
    `${seconds(other.sorted_clusters_s)} with sorted clusters`
      + (isSharedOut ? " (all with equal mini-batches)" : ""),
  ];
  const cut = other.best_other_cut;
  if (cut && cut.round_s !== null) ways.push(`${seconds(cut.round_s)} cut after ${cut.cut_layer}`);
  return ways.join(", ");
}

function tabulated(id, titles, rows) {
  const table = byId(id);
  table.hidden = rows.length === 0;
  fill(table.tHead, [row(titles, { head: true })]);
  fill(table.tBodies[0], rows.map((cells) => row(cells)));
}

const KINDS = { left_out: "excluded", lost: "lost", back: "back", replanned: "replanned", fault: "fault" };

// events: [{round, kind, device, words, run}], the newest last.
export function showEvents(events) {
  fill(byId("events-list"), events.length === 0 ? [el("li", {}, "none so far")] : events.slice(-300).reverse()
    .map(({ round, kind, device, words, run }) => el("li", {},
      `${run ? `${run}, ` : ""}${round === null ? "" : `round ${round} `}`,
      el("b", { class: kind }, KINDS[kind] ?? kind), " ",
      [device, words].filter(Boolean).join(": "))));
}

export function showRuns(runs) {
  byId("runs").hidden = runs.length < 2;
  if (runs.length < 2) return;
  const keys = [...new Set(runs.flatMap(({ job }) => Object.keys(job)))]
    .filter((key) => new Set(runs.map(({ job }) => job[key])).size > 1);
  const lines = [
    ...keys.map((key) => [key, ...runs.map(({ job }) => job[key] ?? DASH)]),
    ["rounds", ...runs.map(({ history }) => history.round.length)],
    [bestTitle(runs), ...runs.map(({ history }) => best(history))],
    ["last training loss", ...runs.map(({ history }) => number(history.train_loss.at(-1)))],
    ["seconds in all", ...runs.map(({ history }) => seconds(history.elapsed_s.at(-1)))],
    ["seconds of a round, mean", ...runs.map(({ history }) => seconds(mean(history.round_s)))],
    ["prediction off by, mean", ...runs.map(({ history }) => percent(missed(history)))],
    ["up in all", ...runs.map(({ history }) => amount(total(history.up_bytes), "B"))],
    ["down in all", ...runs.map(({ history }) => amount(total(history.down_bytes), "B"))],
    ["devices lost", ...runs.map(({ history }) => history.events.filter(({ kind }) => kind === "lost").length)],
  ];
  fill(byId("runs-head"), [row(["figure", ...runs.map(({ name }) => name)], { head: true })]);
  fill(byId("runs-body"), lines.map((cells) => row(cells)));
}

function bestTitle(runs) {
  const names = new Set(runs.map(({ history }) => metricOf(history).name));
  return names.size === 1 ? `best ${metricTitle([...names][0]).toLowerCase()}` : "best, each by its own metric";
}

export const total = (values) => values.reduce((a, b) => a + b, 0);
const mean = (values) => (values.length ? total(values) / values.length : null);

function missed(history) {
  return mean(history.round_s.map((took, at) => [took, history.predicted_round_s[at]])
    .filter(([, predicted]) => predicted !== null).map(([took, predicted]) => Math.abs(predicted / took - 1)));
}

export const predictionOf = (report) => (report.predicted_round_s === null ? ""
  : `${seconds(report.predicted_round_s)} predicted, ${signed(report.relative_error)}`);
