// Who did what when in a round, from the seconds of the phases and the order of the algorithm:
// clusters in turn, a cluster's devices in parallel. Nothing here draws.
//
// The seconds are means of one local epoch, so the epochs of a turn look alike. The server waits
// for the slowest upload, the next cluster for the slowest model.

export const PHASES = [
  ["distribute", "model down"], ["forward", "forward"], ["upload", "upload"],
  ["server", "server"], ["download", "download"], ["backward", "backward"],
  ["model_upload", "model up"],
];
const of = (phases, name) => phases[`${name}_s`] ?? 0;
const MOST_EPOCHS = 50; // Of more, nobody can tell one from the next.

// Takes clusters {number, devices}; gives rows {device, cluster, segments: [{phase, from, to}]} in the order of the turns, and the end.
export function timeline(clusters, phasesOf, localEpochs) {
  const rows = [];
  let start = 0;
  clusters.forEach((cluster) => {
    const present = cluster.devices.filter((device) => phasesOf[device]);
    const turn = turnOf(present, phasesOf, start, localEpochs);
    for (const device of cluster.devices) {
      rows.push({ device, cluster: cluster.number, segments: turn.segments[device] ?? [] });
    }
    start = turn.end;
  });
  return { rows, end: start };
}

function turnOf(devices, phasesOf, start, localEpochs) {
  const segments = Object.fromEntries(devices.map((device) => [device, []]));
  const at = Object.fromEntries(devices.map((device) => [device, start]));
  const add = (device, phase, duration) => {
    if (duration > 0) segments[device].push({ phase, from: at[device], to: at[device] + duration });
    at[device] += Math.max(0, duration);
  };
  const phase = (name) => devices.forEach((device) => add(device, name, of(phasesOf[device], name)));
  const waitUntil = (time) => devices.forEach((device) => add(device, "wait", time - at[device]));
  const slowest = () => Math.max(start, ...devices.map((device) => at[device]));
  const server = devices.reduce((sum, device) => sum + of(phasesOf[device], "server"), 0);
  const meets = devices.some((device) =>
    ["upload", "server", "download"].some((name) => of(phasesOf[device], name) > 0));
  const epochs = Math.min(localEpochs, MOST_EPOCHS);
  phase("distribute");
  for (let epoch = 0; epoch < epochs; epoch += 1) {
    phase("forward");
    if (meets) { // Else the loss is on the device, and nobody waits for another.
      phase("upload");
      waitUntil(slowest());
      devices.forEach((device) => add(device, "server", server));
      phase("download");
    }
    phase("backward");
  }
  phase("model_upload");
  const end = slowest();
  waitUntil(end);
  return { segments, end };
}

// Total seconds of each phase in a row.
export function totals(row) {
  const sums = {};
  for (const { phase, from, to } of row.segments) sums[phase] = (sums[phase] ?? 0) + to - from;
  return sums;
}
