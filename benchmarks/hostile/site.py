"""A site under attack: a broker, agents and a coordinator, and what is seen of their run."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.programs import CPSL, Program, agents, free_port, own_broker, start_agent
from edge_coordinator.fleet.fleet import FleetFolder
from edge_coordinator.fleet.record import FleetRecord
from edge_coordinator.local.broker import find_mosquitto
from runtime.bus.broker_url import TlsFiles
from runtime.bus.bus import Delivery
from runtime.bus.mqtt_bus import MqttBus
from runtime.errors import BusError, EdgeError, MalformedMessageError, UnknownKindError
from runtime.wire.commands import Join
from runtime.wire.control import decode_command
from runtime.wire.published import CoordinatorStatus, DeviceStatus, PlanReport, RoundReport
from runtime.wire.topics import Topics

NUM_HONEST = 3
MEMBER = "member"
"""A device of the fleet that is none of the three: where there is an access list, it attacks."""
LINK_S = 15.0


@dataclass(frozen=True)
class Way:
    """How to reach the broker: without a word of who one is, or by certificates."""

    url: str
    fleet: FleetFolder | None = None

    def files(self, member: str) -> TlsFiles:
        """Give a member's certificate; nothing where nobody is asked for one."""
        if self.fleet is None:
            return TlsFiles()
        folder = self.fleet.path / member
        names = ("authority.pem", "certificate.pem", "key.pem")
        return TlsFiles(*(folder / name for name in names))

    def flags(self, member: str) -> tuple[str, ...]:
        """Give it as an agent's flags."""
        files = self.files(member)
        named = {"--cafile": files.cafile, "--certfile": files.certfile, "--keyfile": files.keyfile}
        return tuple(str(each) for flag, path in named.items() if path for each in (flag, path))

    def settings(self, member: str) -> tuple[str, ...]:
        """Give it as a coordinator's settings."""
        files = self.files(member)
        named = {"cafile": files.cafile, "certfile": files.certfile, "keyfile": files.keyfile}
        given = [f"broker.{name}={path}" for name, path in named.items() if path]
        return tuple(word for each in given for word in ("--set", each))

    async def connect(self, member: str, *, client_id: str | None = None) -> MqttBus:
        """Connect as a member, if certificates are asked for."""
        client_id = client_id or secrets.token_hex(8)
        tls = self.files(member)
        return await MqttBus.connect(self.url, client_id=client_id, wait=False, tls=tls)


@asynccontextmanager
async def open_broker(folder: Path) -> AsyncIterator[Way]:
    """Run a broker that lets everybody in."""
    async with own_broker(folder) as broker:
        yield Way(broker.url)


@asynccontextmanager
async def fleet_broker(folder: Path) -> AsyncIterator[Way]:
    """Run a broker as `cpsl fleet` sets one up."""
    path = folder / "fleet"
    record = FleetRecord(hosts=("localhost",), port=free_port(), site="hostile", days=1,
                         seen_at=path)  # fmt: skip
    fleet = FleetFolder.make(path, record)
    for name in (*honest_names(), MEMBER):
        fleet.add(name, {})
    settings = path / "broker" / "mosquitto.conf"
    settings.write_text(f"{settings.read_text()}user root\n")
    executable = find_mosquitto()
    if executable is None:
        raise EdgeError("this needs mosquitto")
    nowhere = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        executable, "-c", str(settings), stdout=nowhere, stderr=nowhere
    )
    way = Way(record.url, fleet)
    try:
        async with asyncio.timeout(LINK_S):
            while True:
                with contextlib.suppress(BusError):
                    async with await way.connect("coordinator"):
                        break
                await asyncio.sleep(0.1)
        yield way
    finally:
        process.terminate()
        await process.wait()


def honest_names() -> list[str]:
    """Ids of the devices that do nobody any harm."""
    return [f"dev-{index}" for index in range(NUM_HONEST)]


@dataclass
class Site:
    """A run that goes on and on, as its coordinator tells of it."""

    way: Way
    folder: Path
    topics: Topics
    eyes: MqttBus
    """Hears everything, as whoever reads along on an open broker does."""
    coordinator: Program
    agents: list[Program]
    rounds: list[RoundReport] = field(default_factory=list)
    reported_s: list[float] = field(default_factory=list)
    """When each round was reported."""
    plan: PlanReport | None = None
    status: CoordinatorStatus | None = None
    joins: dict[str, Join] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    heard: asyncio.Queue[Delivery] = field(default_factory=lambda: asyncio.Queue(2000))
    """Frames, the newest that there is room for."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def run(self) -> int:
        """Number of the run."""
        return self.rounds[-1].run

    async def watch(self) -> None:
        """Take in what the site says, until cancelled."""
        for topic in self.topics.whole_site:
            await self.eyes.subscribe(topic)
        async for event in self.eyes.events():
            if isinstance(event, Delivery):
                with contextlib.suppress(MalformedMessageError, UnknownKindError):
                    self._take(event)

    def _take(self, event: Delivery) -> None:
        device = self.topics.parse(event.topic)
        if event.topic == self.topics.round and not event.retained:  # That may be another run's.
            report = RoundReport.decode(event.payload)
            if not self.rounds or report.round > self.rounds[-1].round:
                self.rounds.append(report)
                self.reported_s.append(asyncio.get_running_loop().time())
        elif event.topic == self.topics.plan:
            self.plan = PlanReport.decode(event.payload)
        elif event.topic == self.topics.coordinator_status:
            self.status = CoordinatorStatus.decode(event.payload)
        elif device is not None and device.leaf == "command":
            message = decode_command(event.payload)
            if isinstance(message, Join) and self.rounds and message.run == self.run:
                self.joins[device.device] = message
        elif device is not None and device.leaf == "status":
            self.sessions.setdefault(device.device, DeviceStatus.decode(event.payload).session)
        elif device is not None and device.leaf.startswith("up/"):
            if self.heard.full():
                self.heard.get_nowait()
            payload = memoryview(bytes(event.payload))
            self.heard.put_nowait(Delivery(event.topic, payload, event.retained))
            return
        self.news.set()

    async def until_round(self, number: int, *, limit_s: float) -> bool:
        """Wait for the report of a round; False if it does not come in time, or nobody is left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not self.rounds or self.rounds[-1].round < number:
                    self.news.clear()
                    if self.coordinator.process.returncode is not None:
                        return False
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.5):
                            await self.news.wait()
                return True
        return False

    def has_died(self) -> str:
        """Name a program that has ended, with its last words; nothing if none has."""
        programs = {"the coordinator": self.coordinator} | {
            f"dev-{index}": agent for index, agent in enumerate(self.agents)
        }
        for name, program in programs.items():
            if program.process.returncode is not None:
                return f"{name} ended: {' | '.join(program.lines[-2:])}"
        return ""


@asynccontextmanager
async def running_site(way: Way, folder: Path) -> AsyncIterator[Site]:
    """Have three honest devices train on a broker, for the length of the block."""
    name = "hostile"
    async with contextlib.AsyncExitStack() as stack:
        flags = ("--site", name, "--engine", "onnxruntime", "--threads", "1")
        if way.fleet is None:
            programs = await stack.enter_async_context(
                agents(way.url, NUM_HONEST, *flags, folder=folder)
            )
        else:
            programs = []
            for index in range(NUM_HONEST):
                own = way.flags(f"devices/dev-{index}")
                programs.append(
                    await start_agent(way.url, index, NUM_HONEST, *flags, *own, folder=folder)
                )
                stack.push_async_callback(programs[-1].kill)
        for program in programs:
            await stack.enter_async_context(reading(program))
        coordinator = await Program.start(
            *CPSL, "coordinator", "--broker", way.url, *way.settings("coordinator"),
            "--site", name, "--devices", str(NUM_HONEST), "--clusters", "1", "--data", "digits",
            "--cut", "pool1", "--rounds", "1000000", "--plan", "by_hand", "--output", "runs",
            "--set", "devices.patience_s=10", "--set", "devices.excluded_rounds=20",
            cwd=folder,
        )  # fmt: skip
        stack.push_async_callback(coordinator.kill)
        await stack.enter_async_context(reading(coordinator))
        eyes = await stack.enter_async_context(await way.connect("coordinator"))
        site = Site(way, folder, Topics(name), eyes, coordinator, programs)
        watching = asyncio.create_task(site.watch())
        stack.callback(watching.cancel)
        if not await site.until_round(3, limit_s=90.0):
            raise EdgeError(f"no run to attack: {site.has_died() or coordinator.lines[-3:]}")
        yield site


@asynccontextmanager
async def reading(program: Program) -> AsyncIterator[None]:
    """Keep reading what a program prints: a full pipe would stop it."""
    task = asyncio.create_task(program.end())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
