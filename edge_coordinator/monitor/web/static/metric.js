// What says how good a round is: accuracy of classes, IoU of masks, MAE of numbers, or a job's own.

import { DASH, percent } from "./format.js";

const known = (value) => value !== null && value !== undefined;

// {name, values, lower}: values has one for each round, null where it was not evaluated. Of a
// coordinator that names no metric it is accuracy.
export function metricOf(history) {
  const names = history.metric ?? [];
  const name = names.findLast((each) => each) ?? "";
  const values = history.round.map((_, at) => (names[at] ? history.test_metric?.[at] : history.test_accuracy?.[at]) ?? null);
  const isKnown = name || values.some(known);
  return { name: isKnown ? name || "accuracy" : "", values, lower: history.lower_is_better?.at(-1) ?? false };
}

// The same of one report; its value is null where it was not evaluated.
export function metricOfRound(report) {
  return report?.metric ? [report.metric, report.test_metric ?? null] : ["accuracy", report?.test_accuracy ?? null];
}

export function metricText(name, value, places = 2) {
  if (!known(value)) return DASH;
  return name === "accuracy" || !name ? percent(value, places) : String(Number(value.toPrecision(4)));
}

export const metricTitle = (name) => `Test ${name || "metric"}`;

/** The round whose weights a run keeps: of equal ones, that of lower test loss. */
export function best(history) {
  const { name, values, lower } = metricOf(history);
  let at = -1;
  values.forEach((value, now) => {
    if (value === null) return;
    const gain = at < 0 ? 1 : (value - values[at]) * (lower ? -1 : 1);
    const loss = history.test_loss[now] ?? Infinity;
    if (gain > 0 || (gain === 0 && loss < (history.test_loss[at] ?? Infinity))) at = now;
  });
  return at < 0 ? DASH : `${metricText(name, values[at])} (round ${history.round[at]})`;
}
