"""A broker that dies in each phase of a round, and comes back: the same weights.

Killed, it says nothing more. Stopped in order, as for an update of its machine, it publishes the
wills of all who are connected before it goes.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.programs import (
    CPSL,
    OwnBroker,
    Program,
    agents,
    own_broker,
    rounds_of,
    run_directory,
    weights_sha256,
)
from runtime.bus.bus import Delivery
from runtime.bus.mqtt_bus import MqttBus
from runtime.errors import MalformedMessageError
from runtime.wire.frames import Chunk, FrameKind, decode_chunk
from runtime.wire.topics import TENSORS_ROOT

PHASES = (
    "distribution", "forward", "upload", "server", "download", "backward", "model upload",
)  # fmt: skip
NUM_DEVICES = 2
ROUND = 3
"""In which the broker dies."""
DOWN_S = 0.5
STOPPED_FOR_S = 5.0
"""Longer than a device whose will was published has to come back."""
COMPUTE_S = 0.005
"""How long after its last input a device is sure to compute."""
SLOW = """
[[devices]]
name = "slow"
slowdown = 30.0
up_bps = 1e9
down_bps = 1e9
"""


@dataclass(frozen=True)
class Death:
    """How the broker dies, and in which phase."""

    phase: str
    in_order: bool = False

    @property
    def name(self) -> str:
        """What a run with it is called."""
        return f"{self.phase}{', stopped in order' if self.in_order else ''}"


FEW = (Death("upload"), Death("backward"))
ALL = (*(Death(phase) for phase in PHASES), Death("upload", in_order=True))


@dataclass
class Trigger:
    """Recognises the moment of a phase by the chunks that pass."""

    death: Death
    finished: set[str] = field(default_factory=set)
    place: str = ""

    def is_now(self, topic: str, chunk: Chunk) -> bool:
        """Whether the broker is to die at this chunk."""
        if chunk.step.round != ROUND:
            return False
        is_last = chunk.index == chunk.num_chunks - 1
        self.place = f"{chunk.kind.name.lower()} chunk {chunk.index + 1} of {chunk.num_chunks}"
        match self.death.phase, chunk.kind:
            case ("distribution", FrameKind.MODEL) | ("upload", FrameKind.SMASHED):
                return chunk.index == chunk.num_chunks // 2
            case ("download", FrameKind.GRADIENT) | ("model upload", FrameKind.WEIGHTS):
                return chunk.index == chunk.num_chunks // 2
            case "forward", FrameKind.MODEL:
                return is_last
            case ("server", FrameKind.SMASHED) | ("backward", FrameKind.GRADIENT):
                self.finished |= {topic} if is_last else set()
                return len(self.finished) == NUM_DEVICES
        return False


async def compare(folder: Path, deaths: Sequence[Death]) -> dict[str, bool]:
    """Have the broker die each death once; whether each run ends in the same weights."""
    (folder / "slow.toml").write_text(SLOW, encoding="utf-8")
    flags = ("--scenario", str(folder / "slow.toml"), "--chunk-bytes", "2048")
    same = {}
    async with (
        own_broker(folder) as broker,
        agents(broker.url, NUM_DEVICES, *flags, folder=folder),
    ):
        expected = await _train(broker, folder, None)
        print(f"undisturbed: weights {expected[:16]}", flush=True)
        for death in deaths:
            trigger = Trigger(death)
            found = await _train(broker, folder, trigger)
            same[death.name] = found == expected
            (run,) = (folder / _folder_name(death)).iterdir()
            seconds = [line["round_s"] for line in rounds_of(run)]
            lost = [line["lost"] for line in rounds_of(run) if line["lost"]]
            print(
                f"{death.name}: at {trigger.place}; that round took {seconds[ROUND - 1]:.1f} s, "
                f"others {min(seconds[1:]):.1f}; lost {lost or 'nobody'}; "
                f"{'the same weights' if same[death.name] else 'OTHER WEIGHTS'}",
                flush=True,
            )
    return same


async def _train(broker: OwnBroker, folder: Path, trigger: Trigger | None) -> str:
    name = _folder_name(trigger.death) if trigger else "calm"
    program = await Program.start(
        *CPSL, "coordinator", "--broker", broker.url, "--wait", "--plan", "by_hand",
        "--devices", str(NUM_DEVICES), "--clusters", "1", "--rounds", "5", "--local-epochs", "2",
        "--batch-size", "64", "--cut", "fc1", "--set", "broker.chunk_bytes=2048", "--output", name,
        cwd=folder,
    )  # fmt: skip
    if trigger is not None:
        await _kill_when(broker, trigger)
        await broker.ended()
        await asyncio.sleep(STOPPED_FOR_S if trigger.death.in_order else DOWN_S)
        await broker.start()
    assert await program.end() == 0, program.lines[-5:]
    return weights_sha256(run_directory(folder / name))


async def _kill_when(broker: OwnBroker, trigger: Trigger) -> None:
    """Watch what passes the broker, and kill it when it is time."""
    async with await MqttBus.connect(
        broker.url, client_id=f"watcher-{os.getpid()}", wait=False
    ) as bus:
        await bus.subscribe(f"{TENSORS_ROOT}/default/#")
        async for event in bus.events():
            if not isinstance(event, Delivery):
                continue
            try:
                chunk = decode_chunk(event.payload)
            except MalformedMessageError:
                continue  # A probe of a link.
            if trigger.is_now(event.topic, chunk):
                break
        if trigger.death.phase in {"forward", "backward"}:
            await asyncio.sleep(COMPUTE_S)
        if trigger.death.in_order:
            broker.stop()
        else:
            broker.kill()


def _folder_name(death: Death) -> str:
    return death.name.replace(",", "").replace(" ", "-")
