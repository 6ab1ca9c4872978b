#!/usr/bin/env bash
# A fleet on one machine: a Mosquitto of its own, three agents and a coordinator, as on real devices.
# bash examples/fleet.sh --rounds 20     (what follows goes to `cpsl coordinator`)
set -euo pipefail
cd "$(dirname "$0")/.."

for folder in .venv/bin /usr/sbin; do # Where `make demo` and Debian put their programs.
  [ -d "$folder" ] && PATH="$(realpath "$folder"):$PATH"
done
for program in mosquitto cpsl cpsl-agent; do
  command -v "$program" > /dev/null || { echo "fleet.sh needs $program on the path" >&2; exit 1; }
done
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
folder=$(mktemp -d)
started=()
end() {
  kill "${started[@]}" 2> /dev/null || true
  wait
  rm -rf "$folder"
}
trap end EXIT

# Certificates, rights and a bundle for each device. The broker's own user reads its files later.
site="$folder/site"
chmod 711 "$folder"
cpsl fleet init "$site" --host localhost --port "$port" > /dev/null
cpsl fleet add "$site" board-0 board-1 board-2 --data digits > /dev/null
mosquitto -c "$site/broker/mosquitto.conf" > "$folder/mosquitto.log" 2>&1 &
started+=($!)

# Two boards without PyTorch and a stronger one; each has a third of the digits. They wait for the
# broker, and for the coordinator, so the order of starting does not matter.
engines=(onnxruntime onnxruntime torch)
for number in 0 1 2; do
  cpsl-agent --config "$site/devices/board-$number/agent.toml" --engine "${engines[$number]}" \
    --shard "$number/3" --log-level warning > "$folder/board-$number.log" 2>&1 &
  started+=($!)
done

echo "in another terminal: cpsl monitor --fleet $site"
cpsl coordinator --config "$site/coordinator/job.toml" --wait --devices 3 --clusters 1 "$@"
