"""`kill -9` of `cpsl local` at random moments, each followed by `--resume`: the same weights."""

import asyncio
import random
from pathlib import Path

from benchmarks.programs import (
    CPSL,
    Program,
    Stopwatch,
    rounds_of,
    run_directory,
    weights_sha256,
)

ROUNDS = "40"
DEVICES = "4"


async def compare(folder: Path, *, num_kills: int, seed: int) -> bool:
    """Kill a run so often; whether it ends in the weights of one that is left alone."""
    job = ("--devices", DEVICES, "--rounds", ROUNDS, "--set", "evaluation.every=5")
    calm = await Program.start(*CPSL, "local", *job, "--output", "calm", cwd=folder)
    watch = Stopwatch()
    assert await calm.end() == 0, calm.lines
    whole_s = watch.seconds
    expected = weights_sha256(run_directory(folder / "calm"))
    print(f"undisturbed: {whole_s:.1f} s, weights {expected[:16]}", flush=True)
    generator, resume = random.Random(seed), False  # noqa: S311  no secret
    for number in range(1, num_kills + 1):
        how = ("--resume", str(_run(folder))) if resume else (*job, "--output", "killed")
        program = await Program.start(*CPSL, "local", *how, cwd=folder)
        reading = asyncio.create_task(program.end())
        after_s = generator.uniform(0.5, 0.8 * whole_s)
        await asyncio.wait({reading}, timeout=after_s)
        ended = program.process.returncode is not None
        if not ended:
            program.process.kill()
        await reading
        resume = (folder / "killed").is_dir() and any((folder / "killed").iterdir())
        done = len(rounds_of(_run(folder))) if _has_rounds(folder) else 0
        end = "it had ended" if ended else f"killed after {after_s:.2f} s"
        print(f"kill {number:2}: {end}, {done} rounds written down", flush=True)
    how = ("--resume", str(_run(folder))) if resume else (*job, "--output", "killed")
    last = await Program.start(*CPSL, "local", *how, cwd=folder)
    assert await last.end() == 0, last.lines[-5:]
    found = weights_sha256(_run(folder))
    numbers = [line["round"] for line in rounds_of(_run(folder))]
    assert numbers == list(range(1, int(ROUNDS) + 1)), numbers
    print(f"after {num_kills} kills: weights {found[:16]}", flush=True)
    return found == expected


def _run(folder: Path) -> Path:
    return run_directory(folder / "killed")


def _has_rounds(folder: Path) -> bool:
    killed = folder / "killed"
    return killed.is_dir() and any(killed.glob("*/rounds.jsonl"))
