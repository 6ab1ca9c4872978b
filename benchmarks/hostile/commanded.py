"""What a coordinator does to a device that serves it: jobs that are no jobs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hostile.attack import Judgement
from benchmarks.hostile.site import Way, reading
from benchmarks.programs import AGENT, Program
from runtime.bus.bus import Delivery
from runtime.bus.mqtt_bus import MqttBus
from runtime.wire.commands import Assignment, Join, OptimizerSpec, Ready, Refused
from runtime.wire.control import decode_reply
from runtime.wire.topics import Topics

DEVICE = "dev-alone"
TOPICS = Topics("alone")
ANSWER_S = 20.0
JOB = Assignment(
    run=1,
    network="lenet",
    options={},
    loss="cross_entropy",
    seed=0,
    batch_size=16,
    held_out=0.0,
    max_evaluation_samples=10,
    num_classes=10,
    optimizer=OptimizerSpec(),
    carry_state=True,
    measure=False,
)


@dataclass(frozen=True)
class Command:
    """A job, and the turn that it is asked for, that an agent should not obey."""

    name: str
    what: str
    before: str
    changes: dict[str, object]
    cut: int = 3
    is_quick: bool = False


def _touch(folder: Path) -> dict[str, object]:
    return {"command": f"touch {folder / 'touched'}"}


COMMANDS = (
    Command("code", "a network that is `os:system`", "it ran the command",
            {"network": "os:system"}, is_quick=True),
    Command("code-of-loss", "a loss that is `os:system`", "it was imported",
            {"loss": "os:system"}),
    Command("options", "a built-in network of 2^30 x 2^30 units", "",
            {"network": "mlp", "options": {"hidden": [2**30, 2**30]}}, is_quick=True),
    Command("batch", "mini-batches of 2^40 samples", "", {"batch_size": 2**40}),
    Command("raw-data", "a cut before `--min-cut 3`", "it sent its samples", {}, cut=0),
)  # fmt: skip


@asynccontextmanager
async def lone_agent(way: Way, folder: Path) -> AsyncIterator[tuple[Program, MqttBus]]:
    """Have an agent with PyTorch serve whoever commands it, for the length of the block."""
    program = await Program.start(
        *AGENT, "--broker", way.url, "--site", TOPICS.site, "--id", DEVICE, "--data", "digits",
        "--engine", "torch", "--max-memory", "2GB", "--min-cut", "3", "--log-level", "warning",
        cwd=folder,
    )  # fmt: skip
    async with reading(program), await way.connect("") as bus:
        await bus.subscribe(TOPICS.reply(DEVICE))
        await bus.subscribe(TOPICS.profile(DEVICE))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60.0):
                await _next(bus, TOPICS.profile(DEVICE))
        yield program, bus
    await program.kill()


async def _next(bus: MqttBus, topic: str) -> bytes:
    async for event in bus.events():
        if isinstance(event, Delivery) and event.topic == topic:
            return bytes(event.payload)
    raise AssertionError(topic)


async def try_on(command: Command, program: Program, bus: MqttBus, folder: Path) -> Judgement:
    """Give an agent a job; what it did."""
    run = 1 + COMMANDS.index(command)
    changes = dict(command.changes)
    if "os:system" in changes.values():
        changes["options"] = _touch(folder)
    job = JOB.model_copy(update=changes | {"run": run})
    await bus.publish(TOPICS.command(DEVICE), job.encode(), retain=False)
    said = ""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            said = await _refusal(command, run, bus)
    if (folder / "touched").exists():
        return Judgement("not defended", "it ran the command")
    if program.process.returncode is not None:
        return Judgement("not defended", f"the agent ended: {' | '.join(program.lines[-2:])}")
    if not said:
        return Judgement("not defended", "it did not refuse")
    return Judgement("held", f"refused: {said[:100]}")


async def _refusal(command: Command, run: int, bus: MqttBus) -> str:
    """Go on to the turn where the job is not refused; why the device refuses."""
    while True:
        reply = decode_reply(await _next(bus, TOPICS.reply(DEVICE)))
        if isinstance(reply, Refused) and reply.run == run:
            return reply.reason
        if isinstance(reply, Ready) and reply.run == run:
            join = Join(run=run, round=1, cluster=0, purpose="train", cut=command.cut,
                        local_epochs=1, learning_rate=0.1)  # fmt: skip
            await bus.publish(TOPICS.command(DEVICE), join.encode(), retain=False)
