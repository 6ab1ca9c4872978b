"""`kill -9` of a run at random moments, each followed by `--resume`: the same weights."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks.programs import (
    CPSL,
    Program,
    Stopwatch,
    agents,
    own_broker,
    rounds_of,
    run_directory,
    weights_sha256,
)

ROUNDS_A_KILL = 30
"""So that the run goes on through all kills."""
MAX_ROUNDS_OF_A_LIFE = 25
EARLY = 0.2
"""Fraction of the kills that come while the program starts."""
COUNT = 4
JOB = ("--plan", "by_hand", "--devices", str(COUNT), "--set", "evaluation.every=10")
MIXED = (
    "--engine", "mixed", "--set", "training.server_optimizer.name=adamw",
    "--set", "training.server_optimizer.learning_rate=0.001",
    "--set", "training.carry_optimizer_state=false",
)  # fmt: skip
"""Half of the devices on ONNX Runtime; the optimiser of the device side begins anew each turn."""
LOCAL = (*CPSL, "local")


async def compare_coordinator(folder: Path, *, num_kills: int, seed: int) -> bool:
    """Kill `cpsl coordinator`, whose agents live on, as `compare` kills `cpsl local`."""
    async with own_broker(folder) as broker, agents(broker.url, COUNT, folder=folder):
        command = (*CPSL, "coordinator", "--broker", broker.url)
        return await compare(folder, command, num_kills=num_kills, seed=seed)


async def compare(
    folder: Path,
    command: Sequence[str],
    *,
    num_kills: int,
    seed: int,
    more_flags: Sequence[str] = (),
) -> bool:
    """Kill a run so often; whether it ends in the weights of one that is left alone."""
    rounds = ROUNDS_A_KILL * num_kills
    begin = (*command, *JOB, *more_flags, "--rounds", str(rounds), "--output")
    calm = await Program.start(*begin, "calm", cwd=folder)
    watch = Stopwatch()
    assert await calm.end() == 0, calm.lines[-5:]
    expected = weights_sha256(run_directory(folder / "calm"))
    print(f"undisturbed: {rounds} rounds in {watch.seconds:.1f} s, {expected[:16]}", flush=True)
    generator = random.Random(seed)  # noqa: S311  no secret
    for number in range(1, num_kills + 1):
        program = await _go_on(folder, command, begin)
        moment = await _kill_at_some_moment(program, generator)
        print(f"kill {number:2}: {moment}; {_written(folder)} rounds written down", flush=True)
    last = await _go_on(folder, command, begin)
    assert await last.end() == 0, last.lines[-5:]
    run = run_directory(folder / "killed")
    numbers = [line["round"] for line in rounds_of(run)]
    assert numbers == list(range(1, rounds + 1)), numbers
    found = weights_sha256(run)
    print(f"after {num_kills} kills: {len(numbers)} rounds, {found[:16]}", flush=True)
    return found == expected


async def _go_on(folder: Path, command: Sequence[str], begin: Sequence[str]) -> Program:
    """Start the run, or go on with it if it has left anything."""
    if not _has_begun(folder):
        return await Program.start(*begin, "killed", cwd=folder)
    run = str(run_directory(folder / "killed"))
    return await Program.start(*command, "--resume", run, cwd=folder)


async def _kill_at_some_moment(program: Program, generator: random.Random) -> str:
    """Kill a program while it starts, or some rounds later and amid one; when that was."""
    watch, num_rounds = Stopwatch(), 0
    if generator.random() < EARLY:
        await asyncio.sleep(generator.uniform(0.5, 6.0))
    else:
        num_rounds = generator.randint(1, MAX_ROUNDS_OF_A_LIFE)
        for _ in range(num_rounds):
            await program.until("round ")
        await asyncio.sleep(generator.uniform(0.0, 0.3))
    assert program.process.returncode is None, "it ended before it could be killed"
    await program.kill()
    return f"{watch.seconds:.2f} s after its start, {num_rounds} rounds seen"


def _has_begun(folder: Path) -> bool:
    return any(folder.glob("killed/*/job.toml"))


def _written(folder: Path) -> int:
    (path, *_) = [*folder.glob("killed/*/rounds.jsonl"), None]
    return path.read_text(encoding="utf-8").count("\n") if path else 0
