"""What ten who watch cost the coordinator and its rounds, in pairs with nobody watching.

python -m benchmarks.watchers [PAIRS] [--as page|monitors|prometheus]

One run trains all the time. Now nobody watches (no program but the run's own is connected to its
broker), now ten do, for ROUNDS rounds each; which comes first alternates. What is compared is the
processor time of the coordinator's own process a round (all its threads, by
Linux's own clock of it) and the seconds of a round as it reports them.
"""

import argparse
import asyncio
import json
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.programs import CPSL, Program
from benchmarks.watchers.ratios import Ratios
from benchmarks.watchers.watching import KINDS, NUM_WATCHERS, Watching

ROUNDS = 6
"""Of each half of a pair."""
RUN = (
    *(*CPSL, "local", "--scenario", "mixed", "--plan", "by_hand", "--clusters", "2"),
    *("--rounds", "100000", "--output", "out", "--json"),
)
SETTLING_ROUNDS = 10


@dataclass(frozen=True)
class RoundCost:
    """Means of some rounds."""

    cpu_s: float
    """Of the coordinator's process, for a round."""
    round_s: float


class WatchedRun:
    """A run that trains until it is ended, read round by round."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._pid = program.process.pid

    @classmethod
    async def start(cls, folder: Path) -> tuple["WatchedRun", str]:
        """Start training; the run, and its broker's address."""
        program = await Program.start(*RUN, cwd=folder)
        broker = json.loads(await program.until('"event": "broker"'))
        run = cls(program)
        await run.rounds(SETTLING_ROUNDS)
        return run, broker["url"]

    async def rounds(self, count: int) -> list[float]:
        """Wait until so many are over; the seconds of each."""
        lines = [json.loads(await self._program.until('"event": "round"')) for _ in range(count)]
        return [line["round_s"] for line in lines]

    async def cost(self) -> RoundCost:
        """Measure from the end of the present round on."""
        await self.rounds(1)
        before_s = processor_seconds(self._pid)
        seconds = await self.rounds(ROUNDS)
        return RoundCost((processor_seconds(self._pid) - before_s) / ROUNDS, fmean(seconds))

    async def end(self) -> None:
        """End it as Ctrl-C does."""
        self._program.process.send_signal(signal.SIGINT)
        await self._program.end()


def processor_seconds(pid: int) -> float:
    """Read what all threads of a process have run so far, those that ended included.

    It is the clock that `clock_getcpuclockid` names on Linux, in nanoseconds; those of
    /proc/PID/stat are hundredths of a second, a fiftieth of what is measured.
    """
    return time.clock_gettime((~pid << 3) | 2)


async def compare(pairs: int, kinds: Sequence[str]) -> None:
    """Measure pair after pair, and say what the watchers made of it."""
    with tempfile.TemporaryDirectory() as place:
        run, url = await WatchedRun.start(Path(place))
        try:
            for kind in kinds:
                await _compare_kind(run, url, kind, pairs)
        finally:
            await run.end()


async def _compare_kind(run: WatchedRun, url: str, kind: str, pairs: int) -> None:
    found: dict[bool, list[RoundCost]] = {False: [], True: []}
    read_bytes, watchers_cpu_s = 0, 0.0
    for number in range(pairs):
        for is_watched in (False, True) if number % 2 == 0 else (True, False):
            async with AsyncExitStack() as stack:
                if is_watched:
                    watching = await stack.enter_async_context(Watching(kind, url))
                found[is_watched].append(await run.cost())
                if is_watched:
                    read_bytes += watching.read_bytes
                    watchers_cpu_s += watching.processor_s
        print(f"{kind} {number + 1}: nobody {found[False][-1]}, ten {found[True][-1]}", flush=True)
    rounds = pairs * ROUNDS
    print(f"{NUM_WATCHERS} {KINDS[kind]}, {pairs} pairs of {ROUNDS} rounds each:")
    for what, name in (("the coordinator's processor time", "cpu_s"), ("a round", "round_s")):
        alone, watched = ([getattr(cost, name) for cost in found[half]] for half in (False, True))
        ratios = Ratios([b / a for a, b in zip(alone, watched, strict=True)])
        print(f"  {what}: {ratios} of {fmean(alone) * 1e3:.1f} ms")
    print(f"  they read {read_bytes / rounds / 1e3:.0f} kB and took "
          f"{watchers_cpu_s / rounds * 1e3:.0f} ms of processor time a round, in processes of "
          "their own", flush=True)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pairs", nargs="?", type=int, default=12)
    parser.add_argument("--as", dest="kinds", choices=list(KINDS), action="append")
    flags = parser.parse_args()
    asyncio.run(compare(flags.pairs, flags.kinds or list(KINDS)))
