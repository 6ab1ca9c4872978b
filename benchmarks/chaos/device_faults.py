"""Three of five devices fail in three ways, and the run reaches the accuracy all the same."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.programs import (
    CPSL,
    Program,
    agents,
    own_broker,
    rounds_of,
    run_directory,
    start_agent,
)
from runtime.bus.bus import Delivery
from runtime.bus.mqtt_bus import MqttBus
from runtime.errors import MalformedMessageError
from runtime.wire.frames import FrameKind, decode_chunk
from runtime.wire.published import DeviceStatus, RoundReport
from runtime.wire.topics import Topics

TARGET = 0.9
ROUNDS = 60
LIMIT_S = 1.5 * 12
"""One and a half times the keepalive; the deadlines are below it."""
COUNT = 5


class Cable:
    """A way to a broker that can be cut: what is sent goes nowhere, and nobody is told."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_whole = asyncio.Event()
        self._is_whole.set()
        self.own_port = 0

    @asynccontextmanager
    async def lay(self) -> AsyncIterator["Cable"]:
        """Lay it, for the length of the block."""
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.own_port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    def cut(self) -> None:
        """Let nothing through."""
        self._is_whole.clear()

    def mend(self) -> None:
        """Let everything through again."""
        self._is_whole.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while part := await reader.read(65536):
                await self._is_whole.wait()
                writer.write(part)
                await writer.drain()
        finally:
            writer.close()


@dataclass
class Witness:
    """What anyone can hear on the broker, and when."""

    offline_at_s: dict[str, float] = field(default_factory=dict)
    lost_at_s: dict[str, tuple[float, int, str]] = field(default_factory=dict)
    back_in: dict[str, int] = field(default_factory=dict)
    round: int = 0
    mid_batch: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a gradient passes: the devices compute."""
    round_done: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, delivery: Delivery) -> None:
        """Take note."""
        now_s, leaf = time.monotonic(), delivery.topic.rsplit("/", 1)[1]
        device = delivery.topic.split("/")[3] if "/device/" in delivery.topic else ""
        if leaf == "status" and not delivery.retained:
            if DeviceStatus.decode(delivery.payload).state == "offline":
                self.offline_at_s.setdefault(device, now_s)
        elif leaf == "round":
            report = RoundReport.decode(delivery.payload)
            self.round = report.round
            for device, why in report.lost.items():
                self.lost_at_s.setdefault(device, (now_s, report.round, why))
            for device in report.measured:
                if device in self.lost_at_s and self.lost_at_s[device][1] < report.round:
                    self.back_in.setdefault(device, report.round)
            self.round_done.set()
        elif leaf == "gradient":
            with contextlib.suppress(MalformedMessageError):
                if decode_chunk(delivery.payload).kind is FrameKind.GRADIENT:
                    self.mid_batch.set()

    async def until_round(self, number: int) -> None:
        """Wait until a round is done, and the next is in the midst of a batch."""
        while self.round < number:
            self.round_done.clear()
            await self.round_done.wait()
        self.mid_batch.clear()
        await self.mid_batch.wait()


async def compare(folder: Path) -> bool:
    """Train undisturbed and with three faults; whether both reach the accuracy."""
    calm, _ = await _train(folder, "calm", disturbed=False)
    print(f"undisturbed: best accuracy {calm:.2%}", flush=True)
    best, is_noticed = await _train(folder, "disturbed", disturbed=True)
    print(f"with three faults: best accuracy {best:.2%}", flush=True)
    return is_noticed and calm >= TARGET and best >= TARGET


async def _train(folder: Path, name: str, *, disturbed: bool) -> tuple[float, bool]:
    async with (
        own_broker(folder) as broker,
        Cable(broker.port).lay() as cable,
        agents(broker.url, COUNT - 1, folder=folder) as programs,
        await MqttBus.connect(broker.url, client_id="witness", wait=False) as bus,
    ):
        far = await start_agent(
            f"mqtt://127.0.0.1:{cable.own_port}", COUNT - 1, COUNT, folder=folder
        )
        program = await Program.start(
            *CPSL, "coordinator", "--broker", broker.url, "--devices", str(COUNT),
            "--plan", "by_hand", "--rounds", str(ROUNDS), "--output", name, cwd=folder,
        )  # fmt: skip
        witness = Witness()
        listening = asyncio.create_task(_listen(bus, witness))
        is_noticed = True
        reading = asyncio.create_task(program.end())
        try:
            if disturbed:
                is_noticed = await _disturb(witness, programs, cable)
            assert await reading == 0, program.lines[-5:]
        finally:
            listening.cancel()
            cable.mend()
            await far.kill()
        rounds = rounds_of(run_directory(folder / name))
        return max(line["test_accuracy"] or 0.0 for line in rounds), is_noticed


async def _listen(bus: MqttBus, witness: Witness) -> None:
    topics = Topics("default")
    for topic in (
        topics.every_device("status"),
        topics.round,
        topics.every_device("down/gradient"),
    ):
        await bus.subscribe(topic)
    async for event in bus.events():
        if isinstance(event, Delivery):
            witness.hear(event)


async def _disturb(witness: Witness, programs: list[Program], cable: Cable) -> bool:
    """Kill dev-0, stop dev-1 and cut dev-4 off, one after another; mend what can be mended."""
    await witness.until_round(4)
    programs[0].process.kill()
    killed_s = await _noticed(witness, "dev-0", "kill -9")
    await witness.until_round(witness.round + 3)
    os.kill(programs[1].process.pid, signal.SIGSTOP)
    stopped_s = await _noticed(witness, "dev-1", "SIGSTOP")
    os.kill(programs[1].process.pid, signal.SIGCONT)
    await witness.until_round(witness.round + 3)
    cable.cut()
    cut_s = await _noticed(witness, "dev-4", "cut connection")
    cable.mend()
    await witness.until_round(witness.round + 20)
    back = {device: witness.back_in.get(device) for device in ("dev-1", "dev-4")}
    print(f"back in round: {back}", flush=True)
    return max(killed_s, stopped_s, cut_s) <= LIMIT_S + 1 and None not in back.values()


async def _noticed(witness: Witness, device: str, fault: str) -> float:
    """Wait until a device was left out; how long that took since the fault, which is now."""
    start_s = time.monotonic()
    while device not in witness.lost_at_s:
        witness.round_done.clear()
        await witness.round_done.wait()
    at_s, round_, why = witness.lost_at_s[device]
    will_s = witness.offline_at_s.get(device)
    will = f"its will came after {will_s - start_s:.1f} s" if will_s else "no will came"
    print(
        f"{fault} of {device}: {will}; round {round_} ended {at_s - start_s:.1f} s after it "
        f"without it: {why}",
        flush=True,
    )
    return at_s - start_s
