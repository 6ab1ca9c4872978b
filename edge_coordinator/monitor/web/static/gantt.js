// The map of a round: a line for each device, measured bars before those predicted.

import { byId, color, el, fill, row, say } from "./dom.js";
import { DASH, plural, seconds } from "./format.js";
import { PHASES, timeline, totals } from "./timeline.js";

const AXIS = 22;
const NAMES = Object.fromEntries([...PHASES, ["wait", "waiting"]]);

export class Gantt {
  constructor() {
    this.canvas = byId("map-canvas");
    this.chosen = -1; // Of the rows, the one that is told of.
    this.told = "";
    fill(byId("map-legend"), [...PHASES, ["wait", "waiting"], ["predicted", "pale, behind: predicted"], ["over", "the round was over"]]
      .map(([key, name]) => el("li", {}, el("span", { class: `key ${key}` }), name)));
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerdown", (event) => this.point(event));
    byId("map-cluster").addEventListener("change", () => this.lay());
    this.canvas.addEventListener("keydown", (event) => this.step(event));
    byId("map-table").closest("details").addEventListener("toggle", () => this.tabulate());
    new ResizeObserver(() => this.draw()).observe(byId("map-box"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  // Takes clusters: [{devices}]; predicted, measured: device to phases; localEpochs; what it is;
  // took: seconds of the round, if it is over.
  show(round) {
    this.round = round;
    this.offer(round.clusters.length);
    this.lay();
  }

  // Lets one choose a cluster: of sixty in turn each is a sixtieth of the map.
  offer(count) {
    const choice = byId("map-cluster");
    while (choice.options.length > count + 1) choice.lastElementChild.remove();
    for (let number = choice.options.length; number <= count; number += 1) {
      choice.append(el("option", { value: number - 1 }, `of cluster ${number}`));
    }
    choice.closest("label").hidden = count < 2;
  }

  lay() {
    if (!this.round) return;
    const { predicted, measured, localEpochs } = this.round;
    const overlaps = this.round.clusters.some(({ micro_batches: count }) => count > 1);
    const what = this.round.what + (overlaps ? " In micro-batches phases overlap: here each is drawn after the other." : "");
    const chosen = byId("map-cluster").value;
    const clusters = this.round.clusters.map((cluster, number) => ({ ...cluster, number }))
      .filter(({ number }) => chosen === "" || number === Number(chosen));
    const took = chosen === "" ? this.round.took : null;
    this.predicted = timeline(clusters, predicted, localEpochs);
    this.measured = timeline(clusters, measured, localEpochs);
    this.rows = this.measured.rows;
    this.end = Math.max(this.predicted.end, this.measured.end, took ?? 0, 1e-6);
    this.took = took;
    say(byId("map-what"), what);
    this.canvas.setAttribute("aria-label", `${what} ${plural(this.rows.length, "device")} in `
      + `${plural(clusters.length, "cluster")}. Arrow keys go from device to device.`);
    this.tabulate();
    this.draw();
    this.tell();
  }

  get rowHeight() {
    const count = this.rows.length;
    return count <= 40 ? 20 : count <= 120 ? 12 : 7;
  }

  draw() {
    if (!this.rows) return;
    const width = byId("map-box").clientWidth;
    const height = AXIS + this.rows.length * this.rowHeight + 4;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    this.canvas.style.height = `${height}px`;
    if (this.canvas.width !== Math.round(width * ratio)) this.canvas.width = Math.round(width * ratio);
    if (this.canvas.height !== Math.round(height * ratio)) this.canvas.height = Math.round(height * ratio);
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const colors = Object.fromEntries(
      [...Object.keys(NAMES), "ink", "dim", "line"].map((name) => [name, color(name)]));
    pen.font = "11px system-ui, sans-serif";
    this.left = this.rowHeight < 11 ? 34 : Math.min(width * 0.3, 12 + Math.max(
      20, ...this.rows.map(({ device }) => pen.measureText(device).width)));
    this.scale = (width - this.left - 12) / this.end;
    this.drawAxis(pen, colors, width, height);
    this.rows.forEach((line, index) => this.drawRow(pen, colors, line, index, width));
  }

  drawAxis(pen, colors, width, height) {
    pen.fillStyle = colors.dim;
    pen.strokeStyle = colors.line;
    pen.lineWidth = 1;
    const step = niceStep(this.end, Math.max(2, Math.floor((width - this.left) / 80)));
    for (let tick = 0; tick <= this.end * 1.0001; tick += step) {
      const x = Math.round(this.left + tick * this.scale) + 0.5;
      pen.beginPath();
      pen.moveTo(x, AXIS - 4);
      pen.lineTo(x, height);
      pen.stroke();
      const text = seconds(tick);
      const isCut = x + pen.measureText(text).width / 2 > width; // At the right edge.
      pen.textAlign = tick === 0 ? "left" : isCut ? "right" : "center";
      pen.fillText(text, isCut ? width : x, 12);
    }
    if (!this.took) return;
    pen.fillStyle = colors.ink; // Where the round was over; what is beyond the bars is no phase's.
    pen.fillRect(this.left + this.took * this.scale, AXIS - 4, 2, height);
  }

  drawRow(pen, colors, line, index, width) {
    const tall = this.rowHeight;
    const top = AXIS + index * tall;
    if (index > 0 && this.rows[index - 1].cluster !== line.cluster) {
      pen.fillStyle = colors.dim;
      pen.fillRect(0, top, width, 1);
    }
    const gap = tall > 10 ? 2 : 1;
    for (const { phase, from, to } of this.predicted.rows[index].segments) {
      pen.globalAlpha = 0.35; // The same colours, as behind a veil.
      if (phase !== "wait") this.bar(pen, colors[phase], from, to, top + gap, tall - 2 * gap);
    }
    pen.globalAlpha = 1;
    const inset = tall > 10 ? Math.floor(tall / 4) : 2;
    for (const { phase, from, to } of line.segments) {
      const thin = phase === "wait" ? Math.floor((tall - 2 * inset) / 3) : 0;
      this.bar(pen, colors[phase], from, to, top + inset + thin, tall - 2 * inset - 2 * thin);
    }
    pen.textAlign = "left";
    pen.fillStyle = index === this.chosen ? colors.ink : colors.dim;
    if (tall >= 11) pen.fillText(clipped(pen, line.device, this.left - 8), 4, top + tall / 2 + 4);
    else if (index === 0 || this.rows[index - 1].cluster !== line.cluster) {
      pen.fillText(String(line.cluster + 1), 8, top + 10);
    }
    if (index === this.chosen) {
      pen.strokeStyle = colors.ink;
      pen.lineWidth = 1.5;
      pen.strokeRect(1, top + 0.5, width - 2, tall - 1);
    }
  }

  bar(pen, fill_, from, to, top, height) {
    pen.fillStyle = fill_;
    pen.fillRect(this.left + from * this.scale, top, Math.max(0.5, (to - from) * this.scale), height);
  }

  point(event) {
    if (!this.rows) return;
    const index = Math.floor((event.offsetY - AXIS) / this.rowHeight);
    this.choose(Math.max(0, Math.min(this.rows.length - 1, index)));
  }

  step(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 };
    if (!(event.key in steps) || !this.rows?.length) return;
    event.preventDefault();
    this.choose(Math.max(0, Math.min(this.rows.length - 1, this.chosen + steps[event.key])));
    const top = AXIS + this.chosen * this.rowHeight;
    const box = byId("map-box");
    if (top < box.scrollTop) box.scrollTop = top - AXIS;
    if (top + this.rowHeight > box.scrollTop + box.clientHeight) box.scrollTop = top - box.clientHeight / 2;
  }

  choose(index) {
    if (index === this.chosen) return;
    this.chosen = index;
    this.draw();
    this.tell();
  }

  tell() {
    const line = this.rows[this.chosen];
    if (!line) {
      say(byId("map-readout"), this.rows.length ? "Point at a device, or press an arrow key on the map." : "");
      return;
    }
    const parts = (sums) => Object.entries(sums).map(([phase, sum]) => `${NAMES[phase]} ${seconds(sum)}`);
    const measured = parts(totals(line));
    const predicted = totals(this.predicted.rows[this.chosen]);
    delete predicted.wait;
    say(byId("map-readout"), `${line.device}, cluster ${line.cluster + 1}: `
      + `${measured.length ? measured.join(", ") : "nothing measured yet"}. `
      + `Predicted: ${parts(predicted).join(", ") || "nothing"}.`);
  }

  tabulate() {
    if (!this.rows || !byId("map-table").closest("details").open) return;
    const names = ["device", "cluster", "which", ...PHASES.map(([, name]) => name), "waiting", "starts", "ends"];
    const table = byId("map-table");
    const signature = JSON.stringify([this.rows, this.predicted.rows]);
    if (signature === this.told) return;
    this.told = signature;
    fill(table.tHead, [row(names, { head: true })]);
    fill(table.tBodies[0], this.rows.flatMap((line, index) =>
      [["measured", line], ["predicted", this.predicted.rows[index]]]
        .filter(([, each]) => each.segments.length)
        .map(([which, each]) => {
          const sums = totals(each);
          const cells = [...PHASES.map(([phase]) => phase), "wait"].map((phase) => seconds(sums[phase] ?? 0));
          const work = each.segments.filter(({ phase }) => phase !== "wait");
          const span = work.length ? [work[0].from, work.at(-1).to].map(seconds) : [DASH, DASH];
          return row([each.device, each.cluster + 1, which, ...cells, ...span]);
        })));
  }
}

function niceStep(end, most) {
  const rough = end / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
}

function clipped(pen, text, width) {
  let shown = text;
  while (shown.length > 1 && pen.measureText(shown).width > width) shown = `${shown.slice(0, -2)}…`;
  return shown;
}
