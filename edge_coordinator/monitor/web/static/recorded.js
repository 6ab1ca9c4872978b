// Runs that were recorded: one to look at, several beside each other.

import { Charts } from "./charts.js";
import { byId, el, fill, say } from "./dom.js";
import { age, amount, number, plural, seconds } from "./format.js";
import { Gantt } from "./gantt.js";
import { best, metricOf, metricText } from "./metric.js";
import { DeviceTable, predictionOf, showEvents, showNow, showPlan, showRuns, total } from "./tables.js";

async function fetched(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `${path}: ${answer.status}`);
  return answer.json();
}

export async function showRecorded() {
  const runs = await fetched("/runs");
  const several = runs.length > 1;
  const title = runs.map(({ name }) => name).join(" and ");
  document.title = `${title}: cpsl`;
  say(byId("title"), several ? `cpsl, ${runs.length} runs` : `cpsl, ${title}`);
  say(byId("where"), several ? title : Object.entries(runs[0].job).map((entry) => entry.join(" ")).join(", "));
  const simulated = runs.filter(({ clock }) => clock === "virtual").map(({ name }) => name);
  say(byId("state"), simulated.length ? `recorded; the seconds of ${simulated.join(" and ")} are simulated` : "recorded");
  const [{ history, round, plan }] = runs;
  if (!several) showNow(summary(history, round));
  showRuns(runs);
  new Charts().show(runs, plan?.alternatives?.cuts.map(({ cut_layer }) => cut_layer) ?? []);
  showEvents(runs.flatMap((run) => run.history.events.map((event) => ({ ...event, run: several ? run.name : "" })))
    .sort((a, b) => a.round - b.round));
  await new RoundChoice(runs).choose();
}

function summary(history, round) {
  const { name, values } = metricOf(history);
  return [
    ["Rounds", String(history.round.length), `in ${age(history.elapsed_s.at(-1))}`],
    [`Best test ${name || "metric"}`, best(history), ""],
    ["Last training loss", number(history.train_loss.at(-1)), round.test_loss === null ? "" : `test ${number(round.test_loss)}`],
    ["The last round took", seconds(round.round_s), predictionOf(round)],
    ["Bytes in all", `↑\u00a0${amount(total(history.up_bytes), "B")} ↓\u00a0${amount(total(history.down_bytes), "B")}`, ""],
    ["Devices lost", String(history.events.filter(({ kind }) => kind === "lost").length), ""],
    [`Test ${name || "metric"} at the end`, metricText(name, values.findLast((value) => value !== null)), ""],
  ];
}

class RoundChoice {
  constructor(runs) {
    this.runs = runs;
    this.gantt = new Gantt();
    this.table = new DeviceTable({ live: false });
    this.asked = 0;
    fill(byId("map-run"), runs.map(({ name }, index) => el("option", { value: index }, name)));
    byId("map-run").closest("label").hidden = runs.length < 2;
    byId("map-controls").hidden = false;
    byId("map-run").addEventListener("change", () => this.choose());
    byId("map-round").addEventListener("input", () => this.turn());
  }

  async choose() {
    this.run = this.runs[Number(byId("map-run").value)];
    const slider = byId("map-round");
    slider.max = this.run.history.round.length;
    slider.value = slider.max;
    await this.turn();
  }

  async turn() {
    const index = Number(byId("map-run").value);
    const number_ = this.run.history.round[Number(byId("map-round").value) - 1];
    say(byId("map-number"), String(number_));
    byId("map-round").setAttribute("aria-valuetext", `round ${number_}`);
    this.asked += 1;
    const asked = this.asked;
    const { round, plan } = await fetched(`/runs/${index}/rounds/${number_}`);
    if (asked === this.asked) this.show(round, plan); // Else another round was asked for meanwhile.
  }

  show(round, plan) {
    showPlan(plan, round, round.measured);
    if (!plan) return;
    this.gantt.show({
      clusters: plan.clusters, predicted: plan.predicted, measured: round.measured, localEpochs: plan.local_epochs,
      what: `Round ${round.round} of ${plural(this.run.history.round.length, "round")}, done in ${seconds(round.round_s)}.`,
      took: round.round_s,
    });
    const devices = plan.clusters.flatMap(({ devices: names, shares }, cluster) => names.map((device, at) => [device, {
      device, cluster, share: shares[at] ?? null, predicted: plan.predicted[device], measured: round.measured[device],
      why: round.lost[device] ? `lost: ${round.lost[device]}` : "",
    }]));
    const out = Object.entries(plan.left_out).map(([device, why]) => [device, { device, cluster: null, share: null, why: `left out: ${why}` }]);
    const now = new Map([...devices, ...out]);
    const gone = [...this.table.devices.keys()].filter((device) => !now.has(device)).map((device) => [device, null]);
    this.table.update([...now, ...gone]);
  }
}
