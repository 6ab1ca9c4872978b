// A site put together from its messages: the same parts that the page's server makes of them
// (`monitor/view` and `monitor/web/parts` in Python; a test holds the two equal).

import { Malformed, read } from "./schema.js";

const STALE_AFTER_S = 180;
const CLOCK_TOLERANCE_S = 60;
const EARLIEST_UNIX_S = 1_577_836_800;
const MOST_LETTERS = 2000;
const LONGEST_PHASE_S = 1e6; // That a device measures; a prediction may be longer.
const OF_THE_SITE = { "coordinator/status": "coordinator", plan: "plan", round: "round", history: "history" };
const OF_A_DEVICE = ["status", "profile", "metrics", "tags", "settings"];
const DEVICE = /^device\/([A-Za-z0-9][A-Za-z0-9_.-]{0,63})\/([a-z]+)$/;

export class SiteView {
  constructor({ site, broker, schemas }) {
    Object.assign(this, { site, broker, schemas });
    this.root = `cpsl/${site}/`;
    this.malformed = { count: 0, last: null };
    this.told = new Map(); // Of each part, what tells whether it changed.
    this.connected();
  }

  get filters() {
    return [...Object.keys(OF_THE_SITE), ...OF_A_DEVICE.map((leaf) => `device/+/${leaf}`)].map((each) => this.root + each);
  }

  // Begins anew: the broker is about to tell all that it has retained.
  connected() {
    this.lost = null;
    this.messages = { coordinator: null, plan: null, round: null, history: null };
    this.evaluated = null;
    this.planIsFresh = false;
    this.devices = new Map();
  }

  disconnected(reason) {
    this.lost = asWords(reason) || "no reason given";
  }

  // Takes a message; an empty one takes back what was retained on its topic.
  receive(topic, payload, { retained, now_s }) {
    try {
      this.take(topic.slice(this.root.length), payload, { retained, now_s });
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      this.malformed = { count: this.malformed.count + 1, last: asWords(`${topic}: ${error.message}`) };
    }
  }

  take(topic, payload, when) {
    const name = OF_THE_SITE[topic];
    if (name) {
      const message = payload.length ? read(this.schemas[name], payload) : null;
      this.messages[name] = message;
      if (name === "plan") this.planIsFresh = !when.retained;
      if (name === "round") this.takeRound(message);
      return;
    }
    const [, id, leaf] = DEVICE.exec(topic) ?? [];
    if (!id) throw new Malformed("not a topic of a device");
    const known = this.devices.get(id) ?? new Device(id);
    const isNeeded = payload.length || leaf === "metrics"; // Nobody retains those.
    known.take(leaf, isNeeded ? read(this.schemas[leaf], payload) : null, when);
    if (known.isEmpty) this.devices.delete(id);
    else this.devices.set(id, known);
  }

  takeRound(report) {
    if (!report || (this.evaluated && report.run !== this.evaluated.run)) this.evaluated = null;
    const isEvaluated = report && (report.test_loss !== null || report.test_metric !== null
      || (!report.metric && report.test_accuracy !== null));
    if (isEvaluated) this.evaluated = report;
  }

  // The parts that changed since they were asked for last; null for a device that is gone.
  parts(now_s) {
    const { plan, round, history } = this.messages;
    const news = {};
    const tell = (name, mark, part) => {
      if (this.told.has(name) && this.told.get(name) === mark) return;
      this.told.set(name, mark);
      news[name] = part;
    };
    const site = this.sitePart();
    tell("site", JSON.stringify(site), site);
    for (const [name, message] of Object.entries({ plan, round, history })) tell(name, message, message);
    for (const [name, device] of this.deviceParts(now_s)) {
      const { facts_age_s, compute_age_s, link_age_s, ...lasting } = device;
      tell(name, JSON.stringify(lasting), { ...device, at_unix_s: now_s });
    }
    for (const name of this.told.keys()) {
      if (!name.startsWith("device/") || this.devices.has(name.slice("device/".length))) continue;
      this.told.delete(name);
      news[name] = null;
    }
    return news;
  }

  sitePart() {
    const { measured, ...evaluated } = this.evaluated ?? {};
    return {
      site: this.site,
      broker: this.broker,
      connection_lost: this.lost,
      coordinator: this.messages.coordinator,
      evaluated: this.evaluated && evaluated,
      num_malformed: this.malformed.count,
      last_malformed: this.malformed.last,
    };
  }

  deviceParts(now_s) {
    const { plan, round } = this.messages;
    const places = new Map((plan?.clusters ?? []).flatMap(({ devices, shares }, cluster) =>
      devices.map((device, at) => [device, { cluster, share: shares[at] ?? null }])));
    const phases = activities(this.planAtWork, round, this.devices, this.planIsFresh);
    return [...this.devices].map(([id, known]) => {
      const place = places.get(id) ?? { cluster: null, share: null };
      const { state, why } = this.presence(known, now_s, places.has(id));
      const phase = state === "offline" ? "idle" : phases.get(id) ?? "idle";
      const told = known.metrics?.phases ?? null;
      return [`device/${id}`, {
        device: id, state, why: why || null, phase, ...place, ...known.fields(now_s),
        predicted: of(plan?.predicted, id) ?? null,
        measured: of(round?.measured, id) ?? told,
      }];
    });
  }

  // The plan that the coordinator works by, if it works.
  get planAtWork() {
    const { plan, coordinator } = this.messages;
    return plan && coordinator?.state === "online" && coordinator.run === plan.run ? plan : null;
  }

  presence(known, now_s, isPlanned) {
    if (known.isOffline) return { state: "offline", why: "" };
    if (!known.status) return { state: "stale", why: "it has no status" };
    const { lost, isBack } = this.lostInRound(known.id, isPlanned);
    if (lost && !isBack) return { state: "stale", why: lost };
    const age_s = known.ages(now_s).facts_age_s;
    if (age_s > STALE_AFTER_S) return { state: "stale", why: `no new profile for ${duration(age_s)}` };
    if (known.hasNoClock) return { state: "online", why: "its clock is not set, so its figures have no age yet" };
    const leftOut = of(this.messages.plan?.left_out, known.id);
    return { state: "online", why: leftOut ? asWords(`left out: ${leftOut}`) : lost };
  }

  lostInRound(id, isPlanned) {
    const { round, plan, coordinator } = this.messages;
    const reason = of(round?.lost, id);
    if (reason === undefined || (coordinator && coordinator.run !== round.run)) return { lost: "", isBack: false };
    const isLater = plan && (plan.run !== round.run || plan.round > round.round);
    return { lost: asWords(`lost in round ${round.round}: ${reason}`), isBack: isLater && isPlanned };
  }
}

// The last of each message of one device.
class Device {
  constructor(id) {
    Object.assign(this, { id, status: null, profile: null, metrics: null, tags: {}, wanted: null, clockAhead_s: 0 });
  }

  get isEmpty() {
    return !(this.status || this.profile || this.metrics || this.wanted || Object.keys(this.tags).length);
  }

  get isOffline() {
    return this.status?.state === "offline";
  }

  // Whether its clock cannot be right, and what was heard does not say how far it is off.
  get hasNoClock() {
    return this.profile !== null && this.profile.measured_at_unix_s < EARLIEST_UNIX_S && !this.clockAhead_s;
  }

  take(leaf, message, { retained, now_s }) {
    if (leaf === "status") this.takeStatus(message);
    if (leaf === "profile") this.takeProfile(message, retained, now_s);
    if (leaf === "metrics") this.takeMetrics(message);
    if (leaf === "tags") this.tags = message?.tags ?? {};
    if (leaf === "settings") this.wanted = message?.settings ?? null;
  }

  // The last will of an earlier session says nothing about this one.
  takeStatus(status) {
    const isOfAnother = status && this.status && status.session !== this.status.session;
    if (!(isOfAnother && status.state === "offline")) this.status = status;
  }

  takeMetrics(metrics) {
    if (Math.max(...Object.values(metrics.phases)) > LONGEST_PHASE_S) throw new Malformed("a phase is too long");
    this.metrics = metrics;
  }

  takeProfile(profile, retained, now_s) {
    if (profile && profile.device !== this.id) throw new Malformed(`it is the profile of ${profile.device}`);
    this.profile = profile;
    if (!profile || retained) return;
    const ahead_s = profile.measured_at_unix_s - now_s;
    this.clockAhead_s = Math.abs(ahead_s) > CLOCK_TOLERANCE_S ? ahead_s : 0;
  }

  // By its own clock where that is far from ours.
  ages(now_s) {
    const age_s = (measured) => (this.profile && measured && !this.hasNoClock
      ? Math.max(0, now_s + this.clockAhead_s - measured.measured_at_unix_s) : null);
    const { profile } = this;
    return { facts_age_s: age_s(profile), compute_age_s: age_s(profile?.compute), link_age_s: age_s(profile?.link) };
  }

  fields(now_s) {
    const { status, profile, metrics, tags, wanted } = this;
    return {
      engine: status?.engine || profile?.engine || null, tags, wanted_settings: wanted,
      since_unix_s: status?.since_unix_s ?? null, ...this.ages(now_s), profile: profile && shortened(profile), metrics,
    };
  }
}

// A profile's layers and label counts are on the device's own topic.
function shortened({ label_counts, compute, ...profile }) {
  const { layers, ...figures } = compute ?? {};
  return { ...profile, compute: compute && figures };
}

// Where each device of the plan at work is: clusters take turns in its order, and each device
// reports what its turn cost it, so the reports tell whose turn it is.
function activities(plan, round, devices, planIsFresh) {
  if (!plan) return new Map();
  const clusters = plan.clusters.map((cluster) => cluster.devices);
  const all = (activity) => new Map(clusters.flat().map((id) => [id, activity]));
  if (round && round.run === plan.run && round.round >= plan.round) return all("idle");
  const isDone = (id) => {
    const metrics = devices.get(id)?.metrics;
    return metrics?.run === plan.run && metrics.round === plan.round;
  };
  const latest = clusters.findLastIndex((cluster) => cluster.some(isDone));
  const isAwaited = (id) => !isDone(id) && !devices.get(id)?.isOffline;
  const turn = latest >= 0 && clusters[latest].some(isAwaited) ? latest : latest + 1;
  const isAnyDone = [...devices.keys()].some(isDone);
  if (turn === 0 && !planIsFresh && !isAnyDone) return all("?");
  return new Map(clusters.flatMap((cluster, at) => cluster.map((id) =>
    [id, isDone(id) || at < turn ? "done" : at === turn ? "trains" : "waits"])));
}

const of = (table, id) => (table && Object.hasOwn(table, id) ? table[id] : undefined);

// Text that is safe to show: not too long, and printable.
function asWords(text) {
  return [...text].slice(0, MOST_LETTERS).map((letter) =>
    (letter !== " " && /[\p{C}\p{Z}]/u.test(letter) ? " " : letter)).join("");
}

// Seconds in at most three characters.
function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  for (const [unit, size] of [["s", 1], ["m", 60], ["h", 3600]]) {
    if (whole < 100 * size) return `${Math.floor(whole / size)}${unit}`;
  }
  return `${Math.floor(whole / 86400)}d`;
}
