"""How soon a local run trains, and what it takes: `python -m benchmarks.startup`.

Starts `cpsl local` as its user does, with so many devices and a share of 32 random images each, and
watches it from outside: seconds from the command until the first round begins, memory (PSS: what
processes share is counted once) of coordinator, agents and broker together at the end, seconds of
a round, and processor seconds of the coordinator a round. The last lines say whether these grow
faster than the number of devices. `--devices 30 1000 --engines torch --plans by_hand auto` says
which; the ten of the table take some minutes on two idle cores.
"""

import argparse
import asyncio
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from benchmarks.programs import CPSL, Program, Stopwatch, rounds_of, run_directory, run_to_end

SAMPLES_PER_DEVICE, NUM_TEST = 32, 500
SHAPE = (1, 28, 28)
TIMEOUT_S = 900.0
LEAST_COMPARED = 100
"""Devices; with fewer, what a round costs whatever their number would count."""
LINE = "{:>12} {:>8} {:>8} {:>9} {:>10} {:>9} {:>13}"


@dataclass(frozen=True)
class StartedRun:
    """What to start."""

    engine: str
    plan: str
    num_devices: int
    num_rounds: int

    def __str__(self) -> str:
        return f"{self.engine}, {self.plan}, {self.num_devices} devices"


@dataclass(frozen=True)
class Figures:
    """What one run took."""

    run: StartedRun
    start_s: float
    memory_bytes: int
    round_s: float
    coordinator_s: float
    """Processor seconds of the coordinator in a round."""
    num_lost: int


def main() -> int:
    """Run each size and print a line for it; the exit code."""
    arguments = _arguments()
    print(
        LINE.format(
            "engine", "plan", "devices", "start, s", "memory, MB", "round, s", "CPU/round, s"
        )
    )
    found, failed = list[Figures](), list[str]()
    for engine in arguments.engines:
        for plan in arguments.plans:
            for num_devices in arguments.devices:
                run = StartedRun(engine, plan, num_devices, arguments.rounds)
                try:
                    found.append(run_to_end(_measure(run)))
                except (RuntimeError, TimeoutError) as error:
                    failed.append(f"{run}: {error or f'not done after {TIMEOUT_S:g} s'}")
                    _clear()
                    print(failed[-1], flush=True)
                else:
                    _print(found[-1])
    for engine in arguments.engines:
        for plan in arguments.plans:
            _print_growth(
                [each for each in found if (each.run.engine, each.run.plan) == (engine, plan)]
            )
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, nargs="+", default=[10, 30, 100, 300, 1000])
    parser.add_argument("--engines", nargs="+", default=["torch", "onnxruntime"])
    parser.add_argument("--plans", nargs="+", default=["by_hand"], help="by_hand, auto")
    parser.add_argument("--rounds", type=int, default=4, help="the first does not count (4)")
    return parser.parse_args()


async def _measure(run: StartedRun) -> Figures:
    with tempfile.TemporaryDirectory(prefix="cpsl-startup-") as name:
        folder = Path(name)
        _write_data(folder / "data.npz", run.num_devices)
        watch = Stopwatch()
        program = await Program.start(
            *CPSL, "local", "--devices", str(run.num_devices), "--engine", run.engine,
            "--plan", run.plan, "--rounds", str(run.num_rounds), "--data", "npz:data.npz",
            "--partition", "iid", "--output", "runs", cwd=folder,
        )  # fmt: skip
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await _watch(program, watch, run, folder)
        finally:
            await program.kill()


async def _watch(program: Program, watch: Stopwatch, run: StartedRun, folder: Path) -> Figures:
    coordinator = psutil.Process(program.process.pid)
    await _until(program, "cut after", f"{run}: starting", watch)
    start_s = watch.seconds
    await _until(program, "round 1,", f"{run}: round 1 of {run.num_rounds}", watch)
    before_s = _cpu_s(coordinator)
    for number in range(2, run.num_rounds + 1):
        await _until(program, f"round {number},", f"{run}: round {number}", watch)
    coordinator_s = (_cpu_s(coordinator) - before_s) / (run.num_rounds - 1)
    memory_bytes = sum(map(_pss_bytes, (coordinator, *coordinator.children(recursive=True))))
    _progress(f"{run}: ending", watch)
    if await program.end():
        raise RuntimeError(" | ".join(program.lines[-3:]))
    rounds = rounds_of(run_directory(folder / "runs"))
    return Figures(
        run=run,
        start_s=start_s,
        memory_bytes=memory_bytes,
        round_s=median(each["round_s"] for each in rounds[1:]),
        coordinator_s=coordinator_s,
        num_lost=sum(len(each["lost"]) for each in rounds),
    )


async def _until(program: Program, words: str, doing: str, watch: Stopwatch) -> None:
    reading = asyncio.create_task(program.until(words))
    while not reading.done():
        _progress(doing, watch)
        await asyncio.wait({reading}, timeout=1.0)
    await reading


def _progress(doing: str, watch: Stopwatch) -> None:
    if sys.stderr.isatty():
        print(f"\r{doing}, {watch.seconds:.0f} s\x1b[K", end="", file=sys.stderr, flush=True)


def _write_data(path: Path, num_devices: int) -> None:
    generator = np.random.default_rng(0)
    num_train = SAMPLES_PER_DEVICE * num_devices
    np.savez(
        path,
        x_train=generator.integers(0, 256, (num_train, *SHAPE), dtype=np.uint8),
        y_train=generator.integers(0, 10, num_train),
        x_test=generator.integers(0, 256, (NUM_TEST, *SHAPE), dtype=np.uint8),
        y_test=generator.integers(0, 10, NUM_TEST),
    )


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _pss_bytes(process: psutil.Process) -> int:
    full = process.memory_full_info()
    return int(getattr(full, "pss", full.rss))  # Only Linux has it.


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)


def _print(figures: Figures) -> None:
    _clear()
    lost = f"  lost {figures.num_lost}" if figures.num_lost else ""
    cells = LINE.format(
        figures.run.engine,
        figures.run.plan,
        figures.run.num_devices,
        f"{figures.start_s:.1f}",
        f"{figures.memory_bytes / 1e6:.0f}",
        f"{figures.round_s:.2f}",
        f"{figures.coordinator_s:.2f}",
    )
    print(cells + lost, flush=True)


def _print_growth(found: list[Figures]) -> None:
    """Compare the largest with the first that starting up does not rule, of 100 devices or more."""
    many = max(found, key=lambda each: each.run.num_devices, default=None)
    few = next((each for each in found if each.run.num_devices >= LEAST_COMPARED), None)
    if few is None or many is None or few is many:
        return
    devices = many.run.num_devices / few.run.num_devices
    seconds = many.coordinator_s / few.coordinator_s
    verdict = "no faster" if seconds <= devices else "FASTER"
    print(f"{few.run} to {many.run.num_devices}:")
    print(f"  {seconds:.1f} times the coordinator's CPU a round: it grows {verdict}")


if __name__ == "__main__":
    sys.exit(main())
