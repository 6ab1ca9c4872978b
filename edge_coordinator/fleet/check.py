"""The rights of a fleet, tried for real against its running broker."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_coordinator.fleet.fleet import CHECKS, FleetFolder
from edge_coordinator.fleet.record import FleetMember, now_utc
from runtime.bus.broker_url import TlsFiles
from runtime.bus.bus import Delivery
from runtime.bus.mqtt_bus import MqttBus
from runtime.errors import BusError
from runtime.wire.topics import Topics

_PATIENCE_S = 5.0

Say = Callable[["Finding"], None]


@dataclass(frozen=True)
class Finding:
    """One right or its absence, and whether it is as it should be."""

    claim: str
    holds: bool
    reason: str = ""


class FleetCheck:
    """Connects as everybody and tries; publishes only what nobody else listens to."""

    def __init__(self, fleet: FleetFolder, say: Say) -> None:
        self._fleet = fleet
        self._say = say
        self._topics = Topics(fleet.record.site)

    async def run(self) -> None:
        """Try everything, one claim after another; BusError if there is no broker to try."""
        members = {one.name: one for one in self._fleet.record.members}
        coordinator = members["coordinator"]
        async with self._connected(coordinator):
            self._tell("the coordinator is let in")
        await self._try_strangers()
        first, second = (members[name] for name in CHECKS)
        await self._try_hearing(first, second, coordinator, members["monitor"])
        devices = [one for one in members.values() if one.role == "device"]
        for device in devices:
            await self._try_device(device, neighbour=second.name)
        for operator in (one for one in members.values() if one.role == "operator"):
            await self._try_device(operator, neighbour=second.name)

    async def _try_strangers(self) -> None:
        authority = self._fleet.path / "coordinator" / "authority.pem"
        await self._try_refused("nobody is let in without a certificate", TlsFiles(authority))
        revoked = self._fleet.path / "revoked"
        for folder in sorted(revoked.iterdir()) if revoked.exists() else []:
            await self._try_refused(f"{folder.name}, revoked, is not let in", _files(folder))

    async def _try_refused(self, claim: str, files: TlsFiles) -> None:
        try:
            async with self._bus(files):
                self._tell(claim, holds=False, reason="it was")
        except BusError:
            self._tell(claim)

    async def _try_device(self, device: FleetMember, *, neighbour: str) -> None:
        """Connect as a real device; all that it tries should be refused, and so disturbs nobody."""
        if not device.certificates[-1].holds(now_utc()):
            return
        try:
            async with self._connected(device) as bus:
                self._tell(f"{device.name} is let in")
                await self._try_publishing(device.name, bus, neighbour)
        except BusError as error:
            self._tell(f"{device.name} is let in", holds=False, reason=str(error))

    async def _try_publishing(self, name: str, bus: MqttBus, neighbour: str) -> None:
        topics = self._topics
        denied = {
            f"{name} cannot publish as another device": topics.up(neighbour, "smashed"),
            f"{name} cannot publish a plan": topics.plan,
            f"{name} cannot command another device": topics.command(neighbour),
        }
        for claim, topic in denied.items():
            self._tell(claim, holds=not await _is_taken(bus, topic))

    async def _try_hearing(
        self,
        first: FleetMember,
        second: FleetMember,
        coordinator: FleetMember,
        monitor: FleetMember,
    ) -> None:
        topics, own = self._topics, first.name
        foreign = [topics.down(second.name, "gradient"), topics.up(second.name, "smashed")]
        async with self._connected(coordinator) as speaker:
            async with self._connected(first) as bus:
                await self._try_publishing("a device", bus, second.name)
                mine = topics.command(own)
                heard = await arrivals(bus, topics.whole_site, speaker, [*foreign, mine])
            self._tell("a device hears its own commands", holds=mine in heard)
            self._tell("a device does not hear another's tensors", holds=not set(foreign) & heard)
            async with self._connected(monitor) as bus:
                metrics = topics.metrics(second.name)
                heard = await arrivals(bus, topics.whole_site, speaker, [*foreign, metrics])
            self._tell("the monitor hears what is published", holds=metrics in heard)
            self._tell("the monitor does not hear tensors", holds=not set(foreign) & heard)
            async with self._connected(first) as bus:
                reply = topics.reply(own)
                heard = await arrivals(speaker, (reply,), bus, [reply])
            self._tell("the coordinator hears a device", holds=reply in heard)

    def _tell(self, claim: str, *, holds: bool = True, reason: str = "") -> None:
        self._say(Finding(claim, holds, reason))

    @asynccontextmanager
    async def _connected(self, member: FleetMember) -> AsyncIterator[MqttBus]:
        async with self._bus(_files(self._fleet.folder(member))) as bus:
            yield bus

    @asynccontextmanager
    async def _bus(self, files: TlsFiles) -> AsyncIterator[MqttBus]:
        client_id = f"check-{secrets.token_hex(8)}"
        url = self._fleet.record.url
        async with await MqttBus.connect(url, client_id=client_id, wait=False, tls=files) as bus:
            yield bus


async def _is_taken(bus: MqttBus, topic: str) -> bool:
    try:
        await bus.publish(topic, b"check", retain=False)
    except BusError:
        return False
    return True


async def arrivals(
    listener: MqttBus, wanted: Sequence[str], speaker: MqttBus, said: list[str]
) -> set[str]:
    """Publish on each topic; those that came, until the last of them has or time is up."""
    for topic_filter in wanted:
        await listener.subscribe(topic_filter)
    heard: set[str] = set()
    for topic in said:
        await _is_taken(speaker, topic)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            async for event in listener.events():
                if isinstance(event, Delivery) and bytes(event.payload) == b"check":
                    heard.add(event.topic)
                    if event.topic == said[-1]:
                        break
    except TimeoutError:
        pass
    return heard


def _files(folder: Path) -> TlsFiles:
    return TlsFiles(*(folder / f"{name}.pem" for name in ("authority", "certificate", "key")))
