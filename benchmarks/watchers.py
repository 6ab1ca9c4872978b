"""What ten who watch the page cost the coordinator, in pairs with nobody watching.

python -m benchmarks.watchers [PAIRS]
"""

import argparse
import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import psutil

from benchmarks.programs import CPSL, Program, rounds_of, run_directory

NUM_WATCHERS = 10
ROUNDS = 40
RUN = (
    *(*CPSL, "local", "--scenario", "mixed", "--plan", "by_hand", "--clusters", "2"),
    *("--rounds", str(ROUNDS), "--output", "out", "--web", "--web-port", "0", "--no-open"),
)


@dataclass(frozen=True)
class WatchedCost:
    """Of one run."""

    cpu_s: float
    """Of the coordinator's process."""
    round_s: float
    """The median."""
    page_cpu_s: float
    """Of the process that serves the page."""
    read_bytes: int
    """By all who watched."""


async def run_watched(num_watchers: int) -> WatchedCost:
    """Train once under the eyes of so many."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        program = await Program.start(*RUN, cwd=folder)
        url = (await program.until("page: ")).removeprefix("page: ").strip()
        read = [0] * num_watchers
        watching = [
            asyncio.create_task(_watch(url, read, number)) for number in range(num_watchers)
        ]
        timing = asyncio.create_task(_cpu_seconds(program.process.pid))
        if await program.end() != 0:
            raise SystemExit("\n".join(program.lines[-5:]))
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        cpu_s, page_cpu_s = await timing
        rounds = rounds_of(run_directory(folder / "out"))
        return WatchedCost(cpu_s, median(line["round_s"] for line in rounds), page_cpu_s, sum(read))


async def _watch(url: str, read: list[int], number: int) -> None:
    """Read the page's events as a browser does."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(f"GET /events HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
    while received := await reader.read(65536):
        read[number] += len(received)


async def _cpu_seconds(pid: int) -> tuple[float, float]:
    """Give the seconds of a process, and of its page's, as they were last seen."""
    own_s = page_s = 0.0
    while True:
        try:
            process = psutil.Process(pid)
            own_s = sum(process.cpu_times()[:2])
            for child in process.children():
                if "monitor" in child.cmdline():
                    page_s = sum(child.cpu_times()[:2])
        except psutil.Error:
            if not psutil.pid_exists(pid):
                return own_s, page_s
        await asyncio.sleep(0.2)


async def compare(pairs: int) -> None:
    """Run pair after pair, and say what the watchers made of it."""
    costs: dict[int, list[WatchedCost]] = {0: [], NUM_WATCHERS: []}
    for number in range(pairs):
        order = (0, NUM_WATCHERS) if number % 2 == 0 else (NUM_WATCHERS, 0)
        for num_watchers in order:
            cost = await run_watched(num_watchers)
            costs[num_watchers].append(cost)
            print(f"{num_watchers:2} watching: {cost}", flush=True)
    cpu = [b.cpu_s / a.cpu_s - 1 for a, b in zip(*costs.values(), strict=True)]
    rounds = [b.round_s / a.round_s - 1 for a, b in zip(*costs.values(), strict=True)]
    print(f"the coordinator's CPU time: {median(cpu):+.1%} (pairs: {_all(cpu)})")
    print(f"the median round: {median(rounds):+.1%} (pairs: {_all(rounds)})")


def _all(differences: list[float]) -> str:
    return ", ".join(f"{difference:+.1%}" for difference in differences)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pairs", nargs="?", type=int, default=5)
    asyncio.run(compare(parser.parse_args().pairs))
