// Curves over rounds or seconds, of one run or of several.

import { byId, color, el, fill, row, say } from "./dom.js";
import { amount, DASH, number, seconds } from "./format.js";
import { metricOf, metricText, metricTitle } from "./metric.js";

const CHARTS = [
  { metric: true, lines: [["test", null]] },
  { title: "Loss", lines: [["training", "train_loss"], ["test", "test_loss"]], text: (value) => number(value, 3) },
  { title: "Seconds of a round", lines: [["measured", "round_s"], ["predicted", "predicted_round_s"]], text: seconds, zero: true },
  { title: "Bytes of a round", lines: [["up", "up_bytes"], ["down", "down_bytes"]], text: (value) => amount(value, "B"), zero: true },
  { title: "Devices and clusters", lines: [["devices", "num_devices"], ["clusters", "num_clusters"]], text: (value) => number(value, 0), zero: true, stepped: true, whole: true },
  { title: "Cut after", lines: [["cut", "cut_layer"]], stepped: true, named: true },
];
const COLUMNS = [
  ["round", (value) => value], ["elapsed_s", seconds, "since the start"],
  ["train_loss", (value) => number(value), "training loss"], ["test_loss", (value) => number(value), "test loss"],
  ["test_metric", null], ["round_s", seconds, "took"],
  ["predicted_round_s", seconds, "predicted"], ["up_bytes", (value) => amount(value, "B"), "up"],
  ["down_bytes", (value) => amount(value, "B"), "down"], ["num_devices", (value) => value, "devices"],
  ["num_clusters", (value) => value, "clusters"], ["cut_layer", (value) => value, "cut after"],
];
const MOST_ROWS = 200;

export class Charts {
  constructor() {
    this.runs = [];
    this.over = "round";
    this.plots = CHARTS.map((chart) => this.place(chart));
    for (const choice of document.querySelectorAll("input[name=over]")) {
      choice.addEventListener("change", () => {
        this.over = choice.value;
        this.draw({ anew: true });
      });
    }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw({ anew: true }));
    let width = 0;
    new ResizeObserver(() => {
      if (byId("charts").clientWidth === width) return;
      width = byId("charts").clientWidth;
      for (const { plot, box } of this.plots) plot?.setSize({ width: box.clientWidth, height: 200 });
    }).observe(byId("charts"));
    byId("rounds-table").closest("details").addEventListener("toggle", () => this.tabulate());
  }

  place(chart) {
    const box = el("div", { role: "img" });
    const last = el("span");
    const title = el("b", {}, chart.title ?? "");
    byId("charts").append(el("figure", {}, el("figcaption", {}, title, " ", last), box));
    return { chart, title, box, last, plot: null, shape: "" };
  }

  // runs: [{name, history}]; cuts: names of cuts in their order, as far as known.
  show(runs, cuts) {
    this.runs = runs.filter(({ history }) => history?.round.length);
    const metrics = new Set(this.runs.map(({ history }) => metricOf(history).name).filter(Boolean));
    this.metric = metrics.size === 1 ? [...metrics][0] : metrics.size ? "metrics" : "";
    this.cuts = [...new Set([...cuts, ...this.runs.flatMap(({ history }) => history.cut_layer)])];
    this.draw({});
    this.tabulate();
  }

  draw({ anew = false }) {
    for (const place of this.plots) {
      const lines = this.lines(place.chart);
      const shape = JSON.stringify([this.over, lines.map(({ label }) => label), place.chart.named && this.cuts]);
      const data = lines.length ? joined(lines) : null;
      this.caption(place, lines);
      if (!data) continue;
      if (place.plot && place.shape === shape && !anew) {
        place.plot.setData(data);
        continue;
      }
      place.plot?.destroy();
      place.plot = new uPlot(this.options(place, lines), data, place.box);
      place.shape = shape;
    }
  }

  lines(chart) {
    const several = this.runs.length > 1;
    return this.runs.flatMap(({ name, history }, run) =>
      chart.lines.map(([label, column], index) => ({
        label: several ? `${name}: ${label}` : label,
        color: several ? run : index,
        dashed: several && index > 0,
        x: history[this.over],
        y: chart.named ? history[column].map((cut) => this.cuts.indexOf(cut))
          : chart.metric ? metricOf(history).values : history[column],
      })).filter(({ y }) => y.some((value) => value !== null)));
  }

  text(chart) {
    if (chart.metric) return (value) => metricText(this.metric, value, 1);
    return chart.named ? (value) => this.cuts[value] ?? "" : chart.text;
  }

  caption({ chart, title, box, last }, lines) {
    const text = this.text(chart);
    if (chart.metric) say(title, metricTitle(this.metric));
    const latest = lines.map(({ label, y }) => {
      const value = y.findLast((each) => each !== null);
      return lines.length > 1 ? `${label} ${text(value)}` : text(value);
    });
    say(last, latest.length ? `last: ${latest.join(", ")}` : "nothing yet");
    box.setAttribute("aria-label", `${title.textContent} over ${this.over === "round" ? "rounds" : "seconds"}, `
      + `${last.textContent}; all values are in the table below`);
    box.hidden = lines.length === 0;
  }

  options({ chart, box }, lines) {
    const text = this.text(chart);
    const axis = { stroke: color("dim"), grid: { stroke: color("line"), width: 1 }, ticks: { stroke: color("line"), width: 1 } };
    return {
      width: Math.max(200, box.clientWidth), height: 200,
      legend: { show: lines.length > 1 },
      cursor: { drag: { x: true, y: false } },
      scales: {
        x: { time: false },
        y: { range: (plot, low, high) => padded(chart, low, high, this.cuts) },
      },
      axes: [
        { ...axis, size: 30, ...(this.over === "round" ? { filter: wholeOnly } : { values: (plot, ticks) => ticks.map(seconds) }) },
        { ...axis, size: 68,
          ...(chart.named || chart.whole ? { filter: wholeOnly } : {}),
          values: (plot, ticks) => ticks.map((tick) => (tick === null ? "" : text(tick))) },
      ],
      series: [
        { label: this.over === "round" ? "round" : "after", value: (plot, value) => (this.over === "round" ? value ?? DASH : seconds(value)) },
        ...lines.map((line) => ({
          label: line.label, stroke: color(`series-${(line.color % 6) + 1}`), width: 2, spanGaps: true,
          dash: line.dashed ? [6, 4] : undefined,
          points: { show: (plot) => plot.data[0].length < 2 },
          paths: chart.stepped ? uPlot.paths.stepped({ align: -1 }) : undefined,
          value: (plot, value) => (value === null || value === undefined ? DASH : text(value)),
        })),
      ],
    };
  }

  tabulate() {
    const table = byId("rounds-table");
    if (!table.closest("details").open) return;
    const several = this.runs.length > 1;
    const titles = COLUMNS.map(([name, text, title]) => (text ? title ?? name : metricTitle(this.metric).toLowerCase()));
    fill(table.tHead, [row([...(several ? ["run"] : []), ...titles], { head: true })]);
    fill(table.tBodies[0], this.runs.flatMap(({ name, history }) => {
      const metric = metricOf(history);
      const first = Math.max(0, history.round.length - MOST_ROWS);
      return history.round.slice(first).map((_, index) => row([
        ...(several ? [name] : []),
        ...COLUMNS.map(([column, text]) => (text ? text(history[column][first + index]) : metricText(metric.name, metric.values[first + index]))),
      ])).reverse();
    }));
  }
}

/** Ticks at whole numbers; the others keep their places, or labels would move to those before. */
export const wholeOnly = (plot, splits) => splits.map((split) => (Number.isInteger(split) ? split : null));

function padded(chart, low, high, cuts) {
  if (chart.named) return [-0.5, Math.max(0.5, cuts.length - 0.5)];
  if (low === null || high === null) return [0, 1];
  const least = chart.zero ? 0 : low;
  const margin = (high - least || Math.abs(high) || 1) * 0.08;
  return [chart.zero ? 0 : least - margin, high + margin];
}

// One x for all lines: where a line has no value, there is a gap that is spanned.
function joined(lines) {
  const first = lines[0].x;
  if (lines.every(({ x }) => x === first)) return [first, ...lines.map(({ y }) => y)];
  return uPlot.join(lines.map(({ x, y }) => [x, y]));
}
