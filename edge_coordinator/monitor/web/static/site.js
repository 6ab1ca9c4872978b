// A site as it is now: its parts, put in their places.

import { Charts } from "./charts.js";
import { byId, say, trouble } from "./dom.js";
import { age, amount, DASH, number, seconds } from "./format.js";
import { Gantt } from "./gantt.js";
import { best, metricOf, metricOfRound, metricText, metricTitle } from "./metric.js";
import { DeviceTable, predictionOf, showEvents, showNow, showPlan, total } from "./tables.js";

const LONG_ROUND_S = 10; // A map of such a round fills before one's eyes; of shorter ones it flickers.

const MOST_ROUNDS = 2000;
const FIGURES = [
  "round", "elapsed_s", "round_s", "predicted_round_s", "train_loss", "test_loss", "test_accuracy",
  "metric", "test_metric", "lower_is_better",
  "up_bytes", "down_bytes", "num_devices", "num_clusters", "cut_layer",
];

export class Site {
  constructor() {
    this.parts = {};
    this.devices = new Map();
    this.plans = new Map(); // By round, the last few.
    this.rounds = []; // As they were heard.
    this.seen = []; // What befell devices while this page was open.
    this.changed = new Set();
    this.gantt = new Gantt();
    this.charts = new Charts();
    this.table = new DeviceTable({ live: true });
  }

  take(news) {
    const devices = [];
    for (const [name, part] of Object.entries(news)) {
      if (name.startsWith("device/")) devices.push([name.slice("device/".length), part]);
      else {
        this.parts[name] = part;
        this.changed.add(name);
      }
    }
    const { plan, round } = this.parts;
    if (round && (!this.rounds.length || key(this.rounds.at(-1)) !== key(round))) {
      this.rounds.push({ ...round, measured: null });
      if (this.rounds.length > MOST_ROUNDS) this.rounds.shift();
    }
    if (plan && !this.plans.has(key(plan))) {
      this.plans.set(key(plan), plan);
      if (this.plans.size > 5) this.plans.delete(this.plans.keys().next().value);
    }
    if (devices.length) this.takeDevices(devices);
    this.render();
  }

  takeDevices(changes) {
    const heard_s = Date.now() / 1000;
    for (const [name, device] of changes) {
      const before = this.devices.get(name);
      if (device) device.heard_s = heard_s;
      if (before && device && before.state !== device.state) {
        this.seen.push({ round: this.parts.plan?.round ?? null, kind: device.state, device: name, words: device.why ?? "" });
        this.changed.add("events");
      }
      if (device) this.devices.set(name, device);
      else this.devices.delete(name);
    }
    this.table.update(changes);
    this.changed.add("devices");
  }

  // The rounds so far as published, and those that were heard since: of a coordinator that tells
  // no history, or where it may not be read, those alone.
  get history() {
    const { history, round, site } = this.parts;
    const run = site?.coordinator?.run ?? round?.run;
    const known = history && history.run === run ? history : null;
    const last = known?.round.at(-1) ?? 0;
    const later = this.rounds.filter((each) => each.run === run && each.round > last);
    if (!known && !later.length) return null;
    const before = (name) => known?.round.map((_, at) => known[name]?.[at] ?? null) ?? [];
    const columns = FIGURES.map((name) => [name, [...before(name), ...later.map((each) => each[name])]]);
    return { num_rounds: 0, events: [], ...known, ...Object.fromEntries(columns) };
  }

  render() {
    const has = (...names) => names.some((name) => this.changed.has(name));
    if (has("site", "plan", "round", "history", "devices", "refusal")) this.renderNow();
    if (has("history", "round", "site")) this.renderCurves();
    if (has("plan", "round", "devices")) this.renderMap();
    if (has("plan", "round")) showPlan(this.parts.plan, this.parts.round, this.parts.round?.measured);
    if (has("history", "round", "events")) {
      const told = this.history?.events ?? [];
      showEvents([...told, ...this.seen].sort((a, b) => (a.round ?? 0) - (b.round ?? 0)));
    }
    this.changed.clear();
  }

  renderCurves() {
    const history = this.history;
    const cuts = this.parts.plan?.alternatives?.cuts.map(({ cut_layer }) => cut_layer) ?? [];
    if (history?.round) this.charts.show([{ name: "", history }], cuts);
  }

  renderNow() {
    const { site, round, plan, refusal } = this.parts;
    const history = this.history;
    const name = site?.site ?? "";
    document.title = `${name}: cpsl`;
    say(byId("title"), `cpsl, site ${name}`);
    say(byId("where"), `at ${site?.broker ?? ""}`);
    const coordinator = site?.coordinator;
    say(byId("state"), !coordinator ? "no coordinator"
      : coordinator.state === "offline" ? "the coordinator is offline: the last run is over or was stopped"
        : `coordinator online: ${coordinator.phase || "starting"}`);
    const isLost = site?.connection_lost;
    trouble(refusal || (isLost ? `The broker is out of reach (${isLost}); trying again.` : ""));
    const states = { online: 0, stale: 0, offline: 0 };
    for (const { state } of this.devices.values()) states[state] += 1;
    const evaluated = site?.evaluated;
    const [metric, value] = metricOfRound(evaluated);
    const done = history?.round?.length ? history.round.at(-1) : null;
    const bar = byId("progress");
    bar.hidden = !history?.num_rounds;
    if (history?.num_rounds) Object.assign(bar, { max: history.num_rounds, value: done ?? 0 });
    showNow([
      ["Rounds done", done === null ? DASH : `${done}${history.num_rounds ? ` of ${history.num_rounds}` : ""}`,
        history?.elapsed_s?.length ? `in ${age(history.elapsed_s.at(-1))}` : ""],
      [metricTitle(evaluated ? metric : history && metricOf(history).name), metricText(metric, value), history?.round ? `best ${best(history)}` : ""],
      ["Training loss", number(round?.train_loss), evaluated ? `test ${number(evaluated.test_loss)}` : ""],
      ["A round took", seconds(round?.round_s), round ? predictionOf(round) : ""],
      ["Bytes of a round", round ? `↑\u00a0${amount(round.up_bytes, "B")} ↓\u00a0${amount(round.down_bytes, "B")}` : DASH,
        history?.up_bytes ? `${amount(total(history.up_bytes) + total(history.down_bytes), "B")} in the rounds shown` : ""],
      round && Object.keys(round.drawn_j ?? {}).length ? ["Energy of a round", amount(total(Object.values(round.drawn_j)), "J"), mostDrawn(round.drawn_j)] : null,
      ["Cut after", plan?.cut_layer ?? DASH, plan ? `${plan.clusters.length} clusters` : ""],
      ["Devices online", `${states.online} of ${this.devices.size}`,
        [states.stale && `${states.stale} stale`, states.offline && `${states.offline} offline`].filter(Boolean).join(", ")],
      site?.num_malformed ? ["Malformed messages", String(site.num_malformed), site.last_malformed] : null,
    ]);
  }

  renderMap() {
    const { plan, round, site } = this.parts;
    if (!plan) return;
    const works = site?.coordinator?.state === "online" && (!round || key(round) !== key(plan));
    if (works && (!round || round.run !== plan.run || round.round_s > LONG_ROUND_S)) this.mapNow(plan);
    else this.mapLast(plan, round);
  }

  mapNow(plan) {
    const measured = {};
    for (const [name, { metrics }] of this.devices) {
      if (metrics && metrics.run === plan.run && metrics.round === plan.round) {
        const { server_s } = plan.predicted[name] ?? { server_s: 0 };
        measured[name] = { ...metrics.phases, server_s };
      }
    }
    this.map(plan, plan, measured, `Round ${plan.round}, going on: measured as far as devices have told.`);
  }

  mapLast(plan, round) {
    if (!round) return this.mapNow(plan);
    const itsPlan = this.plans.get(key(round));
    const note = itsPlan ? "" : ` Predicted and grouped as in round ${plan.round}.`;
    return this.map(itsPlan ?? plan, round, round.measured,
      `Round ${round.round}, done in ${seconds(round.round_s)}.${note}`, round.round_s);
  }

  map(plan, of, measured, what, took) {
    this.gantt.show({
      clusters: plan.clusters, predicted: plan.predicted, measured, localEpochs: plan.local_epochs, what, took,
    });
  }
}

const key = ({ run, round }) => `${run}/${round}`;

/** Who drew most of it. */
function mostDrawn(joules) {
  const [device, most] = Object.entries(joules).reduce((a, b) => (b[1] > a[1] ? b : a));
  return `most by ${device}: ${amount(most, "J")}`;
}
