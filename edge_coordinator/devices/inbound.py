"""Whatever the bus brings to the coordinator: checked, handed to whoever waits, or dropped."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from edge_coordinator.devices.outstanding import LateAnswers, Outstanding
from edge_coordinator.devices.registry import Change, Registry
from edge_coordinator.devices.timers import RETURN_S
from runtime.bus.bus import Delivery
from runtime.errors import ProtocolError
from runtime.protocol.events import FrameArrived
from runtime.wire.commands import AnyReply, Ready, Refused, decode_reply
from runtime.wire.frames import FrameKind, StepId, TensorSpec, decode_chunk
from runtime.wire.published import DeviceMetrics, DeviceProfile, DeviceStatus
from runtime.wire.topics import DeviceTopic, Topics
from runtime.wire.transfer import FrameInbox

STRANGERS = "strangers"
"""Whoever is no device of the site counts as one: names cost nothing."""

GRACE_S = 3.0
"""How long a device whose connection broke may take to come back before it counts as lost."""

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
        if self._unusable[sender] == 1:
            log.warning("dropped a message of %s on %s: %s", sender, topic, error)
        if self._unusable[sender] != self._max_unusable:
            return ""
        return f"sent {self._max_unusable} messages that cannot be used; the last: {error}"

    def forgive(self, sender: str) -> None:
        """Begin anew with a device that was started again."""
        self._unusable.pop(sender, None)

    def since(self, before: Counter[str]) -> dict[str, int]:
        """Count by sender what was dropped since `counts` was copied."""
        return dict(sorted((self.counts - before).items()))


class Inbound:
    """Takes messages in; what nobody waits for is counted and dropped."""

    def __init__(
        self,
        topics: Topics,
        outstanding: Outstanding,
        dropped: DropCounts,
        *,
        run: int,
        on_other: Callable[[Delivery], None],
    ) -> None:
        """`on_other` takes what no device sent."""
        self.late_answers = LateAnswers(self._tell_all)
        self.registry = Registry(busy=self.late_answers)
        self.changed = asyncio.Event()
        """Set whenever a device has come or gone."""
        self.learnt = asyncio.Event()
        """Set whenever something is known of a device that was not: presence, profile, metrics."""
        self.up_bytes = 0
        self.grace: dict[str, asyncio.TimerHandle] = {}
        """Devices whose connection broke, until they count as lost."""
        self._topics = topics
        self._outstanding = outstanding
        self._dropped = dropped
        self._run = run
        self._on_other = on_other
        self._inboxes: dict[str, FrameInbox] = {}

    def pause(self) -> None:
        """Declare nobody lost while our own connection is down."""
        for timer in self.grace.values():
            timer.cancel()

    def resume(self) -> None:
        """Our connection is back: whoever had gone has the time to find the broker again."""
        for device in list(self.grace):
            self._lose_after(RETURN_S, device)

    def receive(self, delivery: Delivery) -> None:
        """Take one message; whatever is wrong with it is said once a sender and dropped."""
        topic = self._topics.parse(delivery.topic)
        try:
            if topic is None:
                self._on_other(delivery)
            else:
                self._receive_from(topic, delivery)
        except ProtocolError as error:
            device = topic.device if topic else ""
            reason = self._dropped.note_unusable(self._sender(device), delivery.topic, error)
            if reason and device in self.registry.records:
                self.registry.excluded[device] = reason
                self._lose(device, reason)

    def _receive_from(self, topic: DeviceTopic, delivery: Delivery) -> None:
        device = topic.device
        match topic.leaf:
            case "status":
                status = DeviceStatus.decode(delivery.payload)
                self._note(device, self.registry.note_status(device, status), status)
            case "profile":
                self.registry.note_profile(device, DeviceProfile.decode(delivery.payload))
                self.learnt.set()
            case "metrics":
                self.registry.note_metrics(device, DeviceMetrics.decode(delivery.payload))
                self.learnt.set()
            case "up/reply":
                self._reply(device, decode_reply(delivery.payload))
            case "up/probe" if device in self._outstanding.echoes:
                self._outstanding.echoes[device].receive(delivery.payload)
            case "up/smashed":
                self._frame(device, FrameKind.SMASHED, delivery.payload)
            case "up/weights":
                self._frame(device, FrameKind.WEIGHTS, delivery.payload)

    def _reply(self, device: str, reply: AnyReply) -> None:
        """Hand a reply to whoever waits for it; some say what is worth knowing all the same."""
        inquiry = self._outstanding.asked(device, reply)
        if inquiry is not None and inquiry.post(reply):
            return
        match reply:
            case Refused() if inquiry is None and self._is_ours(device, reply.run):
                self.registry.refusals[device] = reply.reason
                self._lose(device, reply.reason)
            case Ready() if inquiry is None and self._is_late_ready(device, reply):
                self.registry.note_ready(device, reply)
                self._tell_all()
            case _:
                self._dropped.note(self._sender(device))

    def _frame(self, device: str, kind: FrameKind, payload: memoryview) -> None:
        if device not in self.registry.records:
            self._dropped.note(STRANGERS)
            return
        if device not in self._inboxes:
            self._inboxes[device] = FrameInbox(partial(self._asked_for, device))
        inbox = self._inboxes[device]
        self.up_bytes += len(payload)
        num_stale = inbox.num_stale
        frame = inbox.feed(payload, kind=kind)
        self._dropped.note(device, inbox.num_stale - num_stale)
        if device in self.late_answers:
            self.late_answers.receive(device, decode_chunk(payload))
        exchange = self._outstanding.exchange
        if exchange is None or inbox.num_stale > num_stale:
            return
        if frame is not None:
            exchange.post(FrameArrived(device, frame))
        else:
            exchange.note_part(device)

    def _asked_for(self, device: str, kind: FrameKind, step: StepId) -> Sequence[TensorSpec] | None:
        """Shapes of what a device has yet to send; nothing once all of it has come."""
        exchange = self._outstanding.exchange
        if exchange is None or not exchange.waits_for(device):
            return None
        return exchange.gathering.asked_for(device, kind, step)

    def _note(self, device: str, change: Change, status: DeviceStatus) -> None:
        """Act on a change of presence: a broken connection has a moment to come back."""
        if change is Change.NOTHING:
            if status.state == "online":
                self._outstanding.note_sign(device)
            return
        self._tell_all()
        self.late_answers.settle(device)
        waiting = self.grace.pop(device, None)
        if waiting is not None:
            waiting.cancel()
        match change:
            case Change.WENT:
                self._lose_after(GRACE_S, device)
            case Change.ARRIVED:
                self._dropped.forgive(device)
                self._lose(device, "was restarted")  # Whoever it was before.
            case Change.RETURNED:
                self._outstanding.note_return(device)

    def _tell_all(self) -> None:
        self.changed.set()
        self.learnt.set()

    def _lose_after(self, seconds: float, device: str) -> None:
        loop = asyncio.get_running_loop()
        self.grace[device] = loop.call_later(seconds, self._lose, device, "went offline")

    def _lose(self, device: str, reason: str) -> None:
        self.grace.pop(device, None)
        self._inboxes.pop(device, None)  # With what has come of a frame, which may be large.
        self._outstanding.lose(device, reason)

    def _is_ours(self, device: str, run: int) -> bool:
        return run == self._run and self.registry.is_assigned(device)

    def _is_late_ready(self, device: str, ready: Ready) -> bool:
        """Whether a device is ready after all that had been given up."""
        return ready.run == self._run and self.registry.is_unready(device)

    def _sender(self, device: str) -> str:
        return device if device in self.registry.records else STRANGERS
