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
broker="mqtt://127.0.0.1:$port"
folder=$(mktemp -d)
started=()
end() {
  kill "${started[@]}" 2> /dev/null || true
  wait
  rm -rf "$folder"
}
trap end EXIT

{
  echo "listener $port 127.0.0.1"
  grep -v '^listener' deploy/mosquitto.conf
} > "$folder/mosquitto.conf"
mosquitto -c "$folder/mosquitto.conf" > "$folder/mosquitto.log" 2>&1 &
started+=($!)

# Two boards without PyTorch and a stronger one; each has a third of the digits. They wait for the
# broker, and for the coordinator, so the order of starting does not matter.
engines=(onnxruntime onnxruntime torch)
for number in 0 1 2; do
  cpsl-agent --broker "$broker" --wait --id "board-$number" --engine "${engines[$number]}" \
    --data digits --shard "$number/3" --log-level warning > "$folder/board-$number.log" 2>&1 &
  started+=($!)
done

echo "in another terminal: cpsl monitor --broker $broker"
cpsl coordinator --broker "$broker" --wait --devices 3 --clusters 1 "$@"
