#!/usr/bin/env bash
# A device on an emulated aarch64: builds the agent's container for arm64, and has it measure itself
# and compute a step on ONNX Runtime. Needs docker or podman, and qemu's binfmt handlers
# (on Debian: qemu-user-static).
set -euo pipefail
cd "$(dirname "$0")/.."
engine=$(command -v docker || command -v podman) || { echo "aarch64.sh needs docker or podman" >&2; exit 1; }
if [ "$(uname -m)" != aarch64 ] && [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
  echo "aarch64.sh needs qemu's handler for aarch64: install qemu-user-static" >&2
  exit 1
fi
"$engine" build --platform linux/arm64 -f deploy/agent.Containerfile -t cpsl-agent:arm64 .
run=("$engine" run --rm --platform linux/arm64 --read-only --tmpfs /tmp --network none)
"${run[@]}" --entrypoint /opt/cpsl/bin/cpsl-agent cpsl-agent:arm64 --version
"${run[@]}" --entrypoint /opt/cpsl/bin/cpsl-agent cpsl-agent:arm64 profile --batch-size 4
