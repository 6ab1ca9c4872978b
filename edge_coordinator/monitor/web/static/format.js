// Numbers as a person reads them; what was not measured is a dash.

export const DASH = "–";
const GAP = "\u00a0"; // No line breaks between a number and its unit.
const known = (value) => value !== null && value !== undefined;

export function amount(value, unit = "") {
  if (!known(value)) return DASH;
  for (const [prefix, factor] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (value >= 0.9995 * factor) return `${digits(value / factor)}${GAP}${prefix}${unit}`;
  }
  return unit ? `${digits(value)}${GAP}${unit}` : digits(value);
}

function digits(value) {
  return value < 9.995 ? trimmed(value, 2) : value < 99.95 ? trimmed(value, 1) : value.toFixed(0);
}

const trimmed = (value, places) => String(Number(value.toFixed(places)));

export function seconds(value) {
  if (!known(value)) return DASH;
  if (value === 0) return `0${GAP}s`;
  if (value < 0.00995) return `${trimmed(1e3 * value, 1)}${GAP}ms`;
  if (value < 0.9995) return `${(1e3 * value).toFixed(0)}${GAP}ms`;
  return value < 120 ? `${digits(value)}${GAP}s` : age(value);
}

export function age(value) {
  if (!known(value)) return DASH;
  const whole = Math.max(0, Math.floor(value));
  for (const [unit, size] of [["s", 1], ["min", 60], ["h", 3600]]) {
    if (whole < 100 * size) return `${Math.floor(whole / size)}${GAP}${unit}`;
  }
  return `${Math.floor(whole / 86400)}${GAP}d`;
}

export const percent = (value, places = 1) =>
  known(value) ? `${(100 * value).toFixed(places)}${GAP}%` : DASH;
export const number = (value, places = 4) => (known(value) ? value.toFixed(places) : DASH);
export const signed = (value) =>
  known(value) ? `${value > 0 ? "+" : value < 0 ? "−" : "±"}${Math.abs(100 * value).toFixed(1)}${GAP}%` : DASH;
export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
