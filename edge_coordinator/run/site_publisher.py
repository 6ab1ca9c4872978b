"""The coordinator as others see it: who coordinates a site, what it does, plans and rounds."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator

from edge_coordinator.run.control import RunControl
from edge_coordinator.run.events import (
    ClassesAgreed,
    ClusterStarted,
    Evaluating,
    Progress,
    RoundDone,
    RoundPlanned,
    Stopped,
    Waiting,
)
from edge_coordinator.run.faults import Faults
from runtime.bus.bus import Bus, BusEvent, Delivery
from runtime.errors import BusError, MalformedMessageError
from runtime.wire.commands import Challenge
from runtime.wire.fields import as_words
from runtime.wire.history import History
from runtime.wire.ownership import Claim, Tenure, Verdict, clock_s, keep_alive
from runtime.wire.published import CoordinatorStatus
from runtime.wire.run_control import ControlRequest
from runtime.wire.topics import Topics

_GOODBYE_S = 2.0
_HISTORY_S = 1.0
"""The history is published no more often than this: it is far longer than a round's report."""

log = logging.getLogger(__name__)


class SitePublisher:
    """Owns the site and publishes the run's retained topics; an observer of the run."""

    def __init__(
        self,
        bus: Bus,
        topics: Topics,
        status: CoordinatorStatus,
        faults: Faults,
        history: History,
        *,
        control: RunControl,
    ) -> None:
        """`history` holds the rounds before this start, and grows."""
        self._history = history
        self._history_at_s = -math.inf
        self._bus = bus
        self._topics = topics
        self._status = status
        self._faults = faults
        self._control = control
        self._claim = Claim(
            what=f"site {topics.site!r}",
            status_topic=topics.coordinator_status,
            challenge_topic=topics.coordinator_challenge,
            own=status,
            decode=CoordinatorStatus.decode,
        )
        self._retained: dict[str, bytes] = {}
        self._due: dict[str, None] = {}
        """Topics to publish, in order; a topic waits once, however many ask for it."""
        self._changed = asyncio.Event()
        self._is_ours = False
        self._tenure = Tenure(now_s=clock_s())
        self._refused_bytes: dict[str, int] = {}
        """Topic of a report to the size from which on the broker does not take it."""

    async def claim(self, events: AsyncIterator[BusEvent]) -> None:
        """Own the site, or raise TakenError because another coordinator does."""
        await self._claim.make(self._bus, events)
        self._tenure = Tenure(now_s=clock_s())
        self._is_ours = True
        await self._bus.subscribe(self._topics.control)
        self._retain_history()  # In the place of another run's.
        self._say("starting")

    def tell(self, progress: Progress) -> None:
        """Publish what happens now, as soon as the bus takes it."""
        match progress:
            case Waiting(what):
                self._say(f"waiting: {what}")
            case ClassesAgreed(classes):
                self._status = self._status.model_copy(update={"classes": classes})
            case RoundPlanned(plan, num_rounds):
                self._history.plan(plan, num_rounds)
                self._retain(self._topics.plan, plan.encode())
                self._say(f"round {plan.round} of {num_rounds}")
            case Evaluating(round_):
                self._say(f"evaluating round {round_}")
            case RoundDone(report):
                self._history.add(report)
                self._retain(self._topics.round, report.encode())
                if time.monotonic() - self._history_at_s >= _HISTORY_S:
                    self._retain_history()
            case Stopped():
                self._say(progress.words)
            case ClusterStarted():
                pass

    def receive(self, delivery: Delivery) -> None:
        """Answer a challenger; TakenError if an older coordinator turns out to be there."""
        if delivery.topic == self._topics.coordinator_challenge:
            challenge = Challenge.decode(delivery.payload)
            if challenge.session != self._status.session:
                self._publish_soon(self._topics.coordinator_status)
        elif delivery.topic == self._topics.coordinator_status:
            self._compare(delivery)
        elif delivery.topic == self._topics.control and not delivery.retained:
            answer = self._control.take(ControlRequest.decode(delivery.payload))
            self._retain(self._topics.control_answer, answer.encode())

    def republish(self) -> None:
        """Publish all that is retained again, after the broker came back."""
        self._tenure.note_return(clock_s())
        for topic in self._retained:
            self._publish_soon(topic)

    async def hold(self) -> None:
        """Take note that the site is looked after, until cancelled."""
        await keep_alive(self._tenure)

    async def publish(self) -> None:
        """Publish whatever changes, until cancelled."""
        while True:
            await self._publish_due()
            self._changed.clear()
            await self._changed.wait()

    async def leave(self) -> None:
        """Publish what is still due and say goodbye, unless the site is another's by now."""
        if not self._is_ours:
            return
        offline = self._status.model_copy(update={"state": "offline", "phase": ""})
        self._retain_history()
        self._retain(self._topics.coordinator_status, offline.encode())
        with contextlib.suppress(BusError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._publish_due()

    async def _publish_due(self) -> None:
        while self._due:
            topic = next(iter(self._due))
            del self._due[topic]
            payload = self._retained[topic]
            if len(payload) >= self._refused_bytes.get(topic, math.inf):
                continue
            try:
                with self._faults.gone_on_from("publishing", instead="it is left out"):
                    await self._bus.publish(topic, payload, retain=True)
            except BusError as error:
                if topic == self._topics.coordinator_status:
                    raise
                self._go_on_without(topic, payload, error)

    def _go_on_without(self, topic: str, payload: bytes, error: BusError) -> None:
        """Train on: a report is for those who watch, and its size grows with the devices."""
        if topic not in self._refused_bytes:
            log.warning("not to be seen by those who watch: %s", error)
        self._refused_bytes[topic] = len(payload)

    def _compare(self, delivery: Delivery) -> None:
        try:
            seen = CoordinatorStatus.decode(delivery.payload)
        except MalformedMessageError:
            return
        retained, now_s = delivery.retained, clock_s()
        match self._tenure.judge(self._status, seen, retained=retained, now_s=now_s):
            case Verdict.YIELD:
                self._is_ours = False
                raise self._claim.taken_by(seen)
            case Verdict.REASSERT:
                self._publish_soon(self._topics.coordinator_status)

    def _say(self, phase: str) -> None:
        status = self._status.model_copy(update={"phase": as_words(phase)})
        self._retain(self._topics.coordinator_status, status.encode())

    def _retain_history(self) -> None:
        self._history_at_s = time.monotonic()
        self._retain(self._topics.history, self._history.report(self._status.run).encode())

    def _retain(self, topic: str, payload: bytes) -> None:
        self._retained[topic] = payload
        self._publish_soon(topic)

    def _publish_soon(self, topic: str) -> None:
        self._due[topic] = None
        self._changed.set()
