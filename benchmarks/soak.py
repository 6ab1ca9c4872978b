"""A long local run whose processes must not grow: `python -m benchmarks.soak --minutes 60`.

Samples the resident memory of every process (coordinator, broker, agents). After a warm-up, the
mean of the last fifth may be at most 1 % above that of the first fifth, for every process.
Ends with 1 if one grew.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean

import psutil

from benchmarks.programs import CPSL, Program, rounds_of, run_directory, run_to_end

WARM_UP = 0.2
"""Fraction of the time that does not count."""
SAMPLE_S = 5.0
MAX_GROWTH = 0.01


def main() -> int:
    """Soak, and say what grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--engine", default="mixed", help="torch, onnxruntime or mixed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cpsl-soak-") as name:
        return run_to_end(_soak(Path(name), arguments))


async def _soak(folder: Path, arguments: argparse.Namespace) -> int:
    program = await Program.start(
        *CPSL, "local", "--rounds", "1000000", "--devices", str(arguments.devices),
        "--engine", arguments.engine, "--plan", "by_hand", "--output", "runs",
        "--set", "evaluation.every=10", cwd=folder,
    )  # fmt: skip
    reading = asyncio.create_task(program.end())
    try:
        samples = await _sample(program.process.pid, 60 * arguments.minutes)
    finally:
        program.process.terminate()
        code = await reading
    rounds = rounds_of(run_directory(folder / "runs"))
    epochs = 3 * len(rounds)
    print(
        f"{arguments.minutes:g} minutes, {len(rounds)} rounds, {epochs} steps of each device, "
        f"{sum(len(line['lost']) for line in rounds)} lost; ended with code {code}"
    )
    are_small = [_report(name, values) for name, values in samples.items()]
    return 0 if all(are_small) else 1


async def _sample(pid: int, seconds: float) -> dict[str, list[tuple[float, int]]]:
    """Resident bytes of a program and all that it started, and when; by process."""
    samples: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    root, start_s = psutil.Process(pid), time.monotonic()
    while (elapsed_s := time.monotonic() - start_s) < seconds:
        for process in (root, *root.children(recursive=True)):
            samples[_name(process)].append((elapsed_s / seconds, process.memory_info().rss))
        await asyncio.sleep(SAMPLE_S)
    return samples


def _name(process: psutil.Process) -> str:
    words = process.cmdline()
    if "device_agent" in words:
        return f"agent of {words[words.index('--id') + 1]} ({process.pid})"
    is_host = any("local_broker_host" in word for word in words)
    kind = "broker's host" if is_host else Path(words[0]).name if words else "?"
    return f"{'coordinator' if 'edge_coordinator' in words else kind} ({process.pid})"


def _report(name: str, samples: list[tuple[float, int]]) -> bool:
    """Say how a process grew; whether that is little enough."""
    span = (1 - WARM_UP) / 5
    first = [rss for at, rss in samples if WARM_UP <= at < WARM_UP + span]
    last = [rss for at, rss in samples if at >= 1 - span]
    if not first or not last:
        print(f"{name}: did not live through it all")
        return False
    growth = mean(last) / mean(first) - 1
    print(f"{name}: {mean(first) / 1e6:.2f} MB, then {mean(last) / 1e6:.2f} MB: {growth:+.2%}")
    return growth <= MAX_GROWTH


if __name__ == "__main__":
    sys.exit(main())
