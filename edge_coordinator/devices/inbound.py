"""Whatever the bus brings to the coordinator: checked, handed to whoever waits, or dropped."""

import asyncio
import logging
from collections import Counter
from functools import partial
from typing import Protocol

from edge_coordinator.devices.link_measurement import LinkEcho
from edge_coordinator.devices.newer_peers import NewerPeers
from edge_coordinator.devices.outbound import Outbound
from edge_coordinator.devices.peers import Peers
from edge_coordinator.devices.registry import Change, Registry
from runtime.bus.bus import Delivery
from runtime.errors import ProtocolError, UnknownKindError
from runtime.protocol.coordinator_events import (
    Arrived,
    Excluded,
    PartArrived,
    ReplyArrived,
    Returned,
    Seen,
    Went,
)
from runtime.protocol.events import FrameArrived
from runtime.wire.chunks.inbox import decode_chunk_of
from runtime.wire.control import SentReply, decode_reply
from runtime.wire.frames import FrameKind
from runtime.wire.published import DeviceMetrics, DeviceProfile, DeviceStatus
from runtime.wire.run_control import DeviceTags
from runtime.wire.topics import DeviceTopic, Topics
from runtime.wire.versions import UnknownCommand, why_incompatible

STRANGERS = "strangers"
"""Whoever is no device of the site counts as one: names cost nothing."""

MAX_TOLD = 20
"""So many senders of unusable messages are named in the log: whoever forges can make up many."""

log = logging.getLogger(__name__)


class DropCounts:
    """Counts what was late, repeated or foreign, and apart from it what can never be right."""

    def __init__(self, *, max_unusable: int) -> None:
        """`max_unusable` messages that can never be right are one too many."""
        self.counts: Counter[str] = Counter()
        self._unusable: Counter[str] = Counter()
        self._max_unusable = max_unusable

    def note(self, sender: str, num_messages: int = 1) -> None:
        """Count messages that came too late, twice, or unasked."""
        if num_messages:
            self.counts[sender] += num_messages

    def note_unusable(self, sender: str, topic: str, error: ProtocolError) -> str:
        """Count a message that can never be right; why its sender is to be excluded, if it is."""
        self.counts[sender] += 1
        self._unusable[sender] += 1
        if self._unusable[sender] == 1 and len(self._unusable) <= MAX_TOLD:
            log.warning("dropped a message of %s on %s: %s", sender, topic, error)
            if len(self._unusable) == MAX_TOLD:
                log.warning("further senders of what cannot be used are counted, and not named")
        if self._unusable[sender] != self._max_unusable:
            return ""
        return f"sent {self._max_unusable} messages that cannot be used; the last: {error}"

    def forgive(self, sender: str) -> None:
        """Begin anew with a device that was started again."""
        self._unusable.pop(sender, None)

    def since(self, before: Counter[str]) -> dict[str, int]:
        """Count by sender what was dropped since `counts` was copied."""
        return dict(sorted((self.counts - before).items()))


class OwnTopics(Protocol):
    """The coordinator's own topics, which are on the devices' connection."""

    def receive(self, delivery: Delivery) -> None:
        """Take what no device sent."""
        ...

    def republish(self) -> None:
        """Tell all that is retained again, over a connection that is new."""
        ...


class Inbound:
    """Takes messages in: what they say of devices is noted, their sessions hear the rest."""

    def __init__(
        self,
        topics: Topics,
        registry: Registry,
        peers: Peers,
        outbound: Outbound,
        dropped: DropCounts,
        *,
        own: OwnTopics | None,
    ) -> None:
        """What no device sent is for `own`, or for nobody."""
        self.changed = asyncio.Event()
        """Set whenever a device has come or gone."""
        self.learnt = asyncio.Event()
        """Set whenever something is known of a device that was not: presence, profile, metrics."""
        self.newer = NewerPeers()
        self.up_bytes = 0
        """Of frames that came from devices."""
        self.echoes: dict[str, LinkEcho] = {}
        """Device id to the measurement of its link that is under way."""
        self._topics = topics
        self._registry = registry
        self._peers = peers
        self._dropped = dropped
        self._own = own
        self._outbound = outbound

    def receive(self, delivery: Delivery) -> None:
        """Take one message; whatever is wrong with it is said once a sender and dropped."""
        topic = self._topics.parse(delivery.topic)
        try:
            if topic is not None:
                self._receive_from(topic, delivery)
            elif self._own is not None:
                self._own.receive(delivery)
        except UnknownKindError as error:
            self.newer.note_kind(self._sender(topic.device if topic else ""), error)
        except ProtocolError as error:
            device = topic.device if topic else ""
            reason = self._dropped.note_unusable(self._sender(device), delivery.topic, error)
            if reason and device in self._registry.records:
                self._registry.excluded[device] = reason
                self._peers.tell(device, Excluded(reason))

    def tell_all(self) -> None:
        """Wake whoever waits for news of devices."""
        self.changed.set()
        self.learnt.set()

    def note_lost(self, device: str) -> None:
        """Take note that a device is not in its turn any more: it is to get the job again."""
        log.warning("%s is not in its turn any more; it gets the job again", device)
        self._registry.note_unassigned(device)
        self.tell_all()

    def _receive_from(self, topic: DeviceTopic, delivery: Delivery) -> None:
        device, payload = topic.device, delivery.payload
        on_unknown = partial(self.newer.note_fields, self._sender(device))
        match topic.leaf:
            case "status" if not payload:
                pass  # Somebody has deleted a retained one.
            case "status":
                status = DeviceStatus.decode(payload, on_unknown=on_unknown)
                self._note(device, self._registry.note_status(device, status), status)
            case "tags":
                payload = delivery.payload
                tags = DeviceTags.decode(payload).tags if payload else {}
                self._registry.note_tags(device, tags)
                self.tell_all()
            case "profile":
                profile = DeviceProfile.decode(payload, on_unknown=on_unknown)
                self._registry.note_profile(device, profile)
                self.learnt.set()
            case "metrics":
                metrics = DeviceMetrics.decode(payload, on_unknown=on_unknown)
                self._registry.note_metrics(device, metrics)
                self._outbound.learn(device, metrics)
                self.learnt.set()
            case "reply":
                self._reply(device, decode_reply(payload, on_unknown=on_unknown))
            case "up/probe" if device in self.echoes:
                self.echoes[device].receive(payload)
            case "up/smashed":
                self._frame(device, FrameKind.SMASHED, payload)
            case "up/weights":
                self._frame(device, FrameKind.WEIGHTS, payload)

    def _reply(self, device: str, reply: SentReply) -> None:
        if device not in self._registry.records:
            self._dropped.note(STRANGERS)
        elif isinstance(reply, UnknownCommand):
            self.newer.note_refused(device, reply)
        else:
            self._peers.tell(device, ReplyArrived(reply))

    def _frame(self, device: str, kind: FrameKind, payload: memoryview) -> None:
        if device not in self._registry.records:
            self._dropped.note(STRANGERS)
            return
        self.up_bytes += len(payload)
        frames = self._peers[device].frames
        try:
            chunk = decode_chunk_of(kind, payload)
            frame = frames.add(chunk)
        except ProtocolError:
            frames.num_unusable += 1
            raise
        if frame is not None:
            self._peers.tell(device, FrameArrived(device, frame))
        else:
            is_last = chunk.index + 1 == chunk.num_chunks
            self._peers.tell(device, PartArrived(chunk.kind, chunk.step, is_last=is_last))

    def _note(self, device: str, change: Change, status: DeviceStatus) -> None:
        """Tell a device's session of a change of presence."""
        match change:
            case Change.NOTHING:
                if status.state == "online" and device in self._registry.records:
                    self._peers.tell(device, Seen())
                return
            case Change.WENT:
                self._peers.tell(device, Went())
            case Change.ARRIVED:
                self._dropped.forgive(device)
                self._peers.tell(device, Arrived(status.session))
                if refused := why_incompatible(status.version, here="this coordinator"):
                    self._outbound.start_farewell(device, status.version, refused)
                if status.state != "online":
                    self._peers.tell(device, Went())
            case Change.RETURNED:
                self._peers.tell(device, Returned())
        self.tell_all()

    def _sender(self, device: str) -> str:
        return device if device in self._registry.records else STRANGERS
