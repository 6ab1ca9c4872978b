"""Programs of two versions on one broker: `python -m benchmarks.upgrades [COMMIT]`.

A worktree of the commit (without one: the last of version 0.2) plays the other version. Each
version's coordinator trains with two agents of its own and one of the other's. That one has to take
part; or both sides have to say both versions, and the run has to go on without it. Ends with 1 if
neither is so.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.programs import OwnBroker, Program, own_broker, rounds_of, run_directory, run_to_end
from runtime.errors import EdgeError

LAST_OF_0_2 = "406e267"
ROUNDS = 3
HERE = Path(__file__).resolve().parent.parent


@contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """Check a commit out beside this one for the length of the block."""
    path = folder / "other"
    made = _git("worktree", "add", "--detach", str(path), commit)
    if made.returncode:
        raise EdgeError(
            f"no commit {commit} to run against ({made.stderr.strip()}); a shallow clone lacks it: "
            "git fetch --unshallow"
        )
    try:
        yield path
    finally:
        _git("worktree", "remove", "--force", str(path))


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    command = ("git", "-C", str(HERE), *words)
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def _start(package: str, tree: Path, *flags: str, folder: Path) -> Program:
    """Start a program of one of the trees, whichever is installed."""
    words = ("env", f"PYTHONPATH={tree}", sys.executable, "-P", "-m", package)
    return await Program.start(*words, *flags, cwd=folder)


async def _train(broker: OwnBroker, own: Path, other: Path, folder: Path) -> bool:
    """Run a coordinator with two agents of its own and one of the other version."""
    site = ("--site", folder.name)
    trees = (own, own, other)
    agents = [
        await _start(
            "device_agent", tree, "--broker", broker.url, "--id", f"dev-{index}",
            "--data", "digits", "--shard", f"{index}/3", *site, folder=folder,
        )
        for index, tree in enumerate(trees)
    ]  # fmt: skip
    try:
        coordinator = await _start(
            "edge_coordinator", own, "coordinator", "--broker", broker.url, *site,
            "--devices", "2", "--data", "digits", "--rounds", str(ROUNDS), "--clusters", "1",
            "--cut", "pool1", "--output", str(folder / "runs"), folder=folder,
        )  # fmt: skip
        async with asyncio.timeout(120):
            if await coordinator.end():
                raise EdgeError("the coordinator failed: " + " | ".join(coordinator.lines[-5:]))
    finally:
        for agent in agents:
            await agent.kill()
    rounds = rounds_of(run_directory(folder / "runs"))
    num_devices = rounds[-1]["num_devices"]
    print(f"  {len(rounds)} of {ROUNDS} rounds, the last with {num_devices} of 3 devices")
    told = [_last_told(program) for program in (coordinator, agents[2])]
    for who, line in zip(("coordinator", "agent"), told, strict=True):
        print(f"  the {who} said: {line or 'nothing'}", flush=True)
    return len(rounds) == ROUNDS and (num_devices == 3 or all(told))


def _last_told(program: Program) -> str:
    """The last line that says what versions somebody speaks."""
    return next((line.strip() for line in reversed(program.lines) if "speaks" in line), "")


async def _compare(commit: str) -> int:
    is_right = True
    with (
        tempfile.TemporaryDirectory(prefix="cpsl-upgrades-") as name,
        worktree(commit, Path(name)) as other,
    ):
        async with own_broker(Path(name)) as broker:
            for what, trees in {
                "this coordinator, one agent of the other version": (HERE, other),
                "the other coordinator, one agent of this version": (other, HERE),
            }.items():
                folder = Path(name) / f"site-{trees[0].name}"
                folder.mkdir()
                print(what, flush=True)
                is_right &= await _train(broker, *trees, folder)
    return 0 if is_right else 1


def main() -> int:
    """Run both ways round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit", nargs="?", default=LAST_OF_0_2, help=f"({LAST_OF_0_2})")
    try:
        return run_to_end(_compare(parser.parse_args().commit))
    except EdgeError as error:
        sys.exit(f"upgrades: {error}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
