"""What ten who watch cost the coordinator and its rounds, in pairs with nobody watching.

python -m benchmarks.watchers [PAIRS] [--as KIND] [--together] [--idle]

One run trains all the time, on a core of its own with its broker and its agents; whoever watches is
on the others, so that what is measured is what watching takes of a run, and not what ten programs
take of a laptop. Now nobody watches (no program but the run's own is connected to its broker), now
ten do, for ROUNDS rounds each; which comes first alternates. What is compared is the processor time
of the coordinator's own process a round (all its threads, by Linux's own clock of it) and the
seconds of a round as it reports them.

In both halves the other cores are busy, at the lowest priority. With --idle they are not: then the
coordinator seems to take less while it is watched, for a machine with nothing to do clocks down.
"""

import argparse
import json
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import psutil

from benchmarks.programs import CPSL, Program, agents, own_broker, run_to_end
from benchmarks.watchers.cores import Cores
from benchmarks.watchers.ratios import Ratios
from benchmarks.watchers.watching import KINDS, NUM_WATCHERS, Watching

ROUNDS = 6
"""Of each half of a pair."""
NUM_DEVICES = 6
RUN = (
    *(*CPSL, "coordinator", "--devices", str(NUM_DEVICES), "--plan", "by_hand", "--clusters", "2"),
    *("--rounds", "100000", "--output", "out", "--json"),
)
SETTLING_ROUNDS = 10


@dataclass(frozen=True)
class RoundCost:
    """Means of some rounds."""

    cpu_s: float
    """Of the coordinator's process, for a round."""
    round_s: float
    wakeups: float
    """How often its event loop had waited for something and went on, in a round."""


class WatchedRun:
    """A run that trains until it is ended, read round by round."""

    def __init__(self, program: Program, *, broker: str, metrics: str) -> None:
        self._program = program
        self._pid = program.process.pid
        self.broker, self.metrics = broker, metrics
        """Where its broker is, and where it serves its own metrics."""

    @classmethod
    async def start(cls, broker: str, folder: Path, *, serves_metrics: bool) -> "WatchedRun":
        """Start training with the agents of a broker."""
        flags = ("--prometheus", "0") if serves_metrics else ()
        program = await Program.start(*RUN, "--broker", broker, *flags, cwd=folder)
        metrics = ""
        if serves_metrics:
            metrics = json.loads(await program.until('"event": "metrics"'))["url"]
        run = cls(program, broker=broker, metrics=metrics)
        await run.rounds(SETTLING_ROUNDS)
        return run

    async def rounds(self, count: int) -> list[float]:
        """Wait until so many are over; the seconds of each."""
        lines = [json.loads(await self._program.until('"event": "round"')) for _ in range(count)]
        return [line["round_s"] for line in lines]

    async def cost(self) -> RoundCost:
        """Measure from the end of the present round on."""
        await self.rounds(1)
        before_s, wakeups = processor_seconds(self._pid), self._wakeups
        seconds = await self.rounds(ROUNDS)
        cpu_s = (processor_seconds(self._pid) - before_s) / ROUNDS
        return RoundCost(cpu_s, fmean(seconds), (self._wakeups - wakeups) / ROUNDS)

    @property
    def _wakeups(self) -> int:
        return int(psutil.Process(self._pid).num_ctx_switches().voluntary)

    async def end(self) -> None:
        """End it as a service manager does."""
        self._program.process.terminate()
        await self._program.end()


def processor_seconds(pid: int) -> float:
    """Read what all threads of a process have run so far, those that ended included.

    It is the clock that `clock_getcpuclockid` names on Linux, in nanoseconds; those of
    /proc/PID/stat are hundredths of a second, a fiftieth of what is measured.
    """
    return time.clock_gettime((~pid << 3) | 2)


async def compare(kind: str, pairs: int, *, cores: Cores, is_idle: bool) -> None:
    """Measure pair after pair, and say what the watchers made of it."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cores.for_run()
        url = (await stack.enter_async_context(own_broker(folder))).url
        emulated = agents(url, NUM_DEVICES, "--scenario", "mixed", folder=folder)
        await stack.enter_async_context(emulated)
        run = await WatchedRun.start(url, folder, serves_metrics=kind == "coordinator")
        stack.push_async_callback(run.end)
        cores.for_watchers()
        if not is_idle:
            await stack.enter_async_context(cores.kept_busy())
        await _compare(run, kind, pairs)


async def _compare(run: WatchedRun, kind: str, pairs: int) -> None:
    found: dict[bool, list[RoundCost]] = {False: [], True: []}
    read_bytes, watchers_cpu_s = 0, 0.0
    for number in range(pairs):
        for is_watched in (False, True) if number % 2 == 0 else (True, False):
            async with AsyncExitStack() as stack:
                if is_watched:
                    watching = await stack.enter_async_context(Watching(kind, run))
                found[is_watched].append(await run.cost())
                if is_watched:
                    read_bytes += watching.read_bytes
                    watchers_cpu_s += watching.processor_s
        print(f"{kind} {number + 1}: nobody {found[False][-1]}, ten {found[True][-1]}", flush=True)
    rounds = pairs * ROUNDS
    print(f"{NUM_WATCHERS} {KINDS[kind]}, {pairs} pairs of {ROUNDS} rounds each:")
    for what, name in (
        ("the coordinator's processor time, ms", "cpu_s"),
        ("a round, ms", "round_s"),
        ("wake-ups of the coordinator, thousands", "wakeups"),
    ):
        alone, watched = ([getattr(cost, name) for cost in found[half]] for half in (False, True))
        ratios = Ratios([b / a for a, b in zip(alone, watched, strict=True)])
        factor = 1e-3 if name == "wakeups" else 1e3
        print(f"  {what}: {ratios} of {fmean(alone) * factor:.4g}")
    print(f"  they read {read_bytes / rounds / 1e3:.0f} kB and took "
          f"{watchers_cpu_s / rounds * 1e3:.0f} ms of processor time a round, in processes of "
          "their own", flush=True)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pairs", nargs="?", type=int, default=12)
    parser.add_argument("--as", dest="kinds", choices=list(KINDS), action="append")
    parser.add_argument("--together", action="store_true", help="all on all cores, as on a laptop")
    parser.add_argument("--idle", action="store_true", help="leave the watchers' cores idle")
    flags = parser.parse_args()
    cores = Cores(are_shared=flags.together)
    for kind in flags.kinds or KINDS:
        run_to_end(compare(kind, flags.pairs, cores=cores, is_idle=flags.idle))
