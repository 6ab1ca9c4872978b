"""A broker with small queues and packets trains to the same weights as a generous one."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.programs import (
    CPSL,
    Program,
    agents,
    own_broker,
    rounds_of,
    run_directory,
    weights_sha256,
)

SMALL = ("max_queued_messages 10", "max_packet_size 262144")
COUNT = 5


async def compare(folder: Path) -> bool:
    """Train over both; whether the weights are equal."""
    found = {
        name: await _train(folder, name, settings)
        for name, settings in (("generous", ()), ("small", SMALL))
    }
    return found["generous"] == found["small"]


async def _train(folder: Path, name: str, settings: Sequence[str]) -> str:
    async with own_broker(folder, settings) as broker, agents(broker.url, COUNT, folder=folder):
        program = await Program.start(
            *CPSL, "coordinator", "--broker", broker.url, "--devices", str(COUNT),
            "--plan", "by_hand", "--clusters", "1", "--rounds", "8", "--batch-size", "128",
            "--output", name, cwd=folder,
        )  # fmt: skip
        assert await program.end() == 0, program.lines[-5:]
    run = run_directory(folder / name)
    seconds = [line["round_s"] for line in rounds_of(run)]
    lost = [line["lost"] for line in rounds_of(run) if line["lost"]]
    weights = weights_sha256(run)
    print(
        f"{name}: rounds of {min(seconds):.2f} to {max(seconds):.2f} s, lost {lost or 'nobody'}, "
        f"weights {weights[:16]}",
        flush=True,
    )
    return weights
