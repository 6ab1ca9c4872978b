"""The coordinator as others see it: who coordinates a site, what it does, plans and rounds."""

import asyncio
from collections.abc import AsyncIterator

from edge_coordinator.progress import (
    ClusterStarted,
    Evaluating,
    Progress,
    RoundDone,
    RoundPlanned,
    Waiting,
)
from runtime.bus import Bus, BusEvent, Delivery
from runtime.errors import MalformedMessageError
from runtime.messages import Challenge, CoordinatorStatus
from runtime.ownership import Claim, Verdict, judge
from runtime.topics import Topics


class Presence:
    """Owns the site and publishes the run's retained topics; an observer of the run."""

    def __init__(self, bus: Bus, topics: Topics, status: CoordinatorStatus) -> None:
        self._bus = bus
        self._topics = topics
        self._status = status
        self._claim = Claim(
            what=f"site {topics.site!r}",
            status_topic=topics.coordinator_status,
            challenge_topic=topics.coordinator_challenge,
            own=status,
            decode=CoordinatorStatus.decode,
        )
        self._retained: dict[str, bytes] = {}
        self._changed: asyncio.Queue[str] = asyncio.Queue()

    async def claim(self, events: AsyncIterator[BusEvent]) -> None:
        """Own the site, or raise SettingsError because another coordinator does."""
        await self._claim.make(self._bus, events)
        self._say("starting")

    def tell(self, progress: Progress) -> None:
        """Publish what happens now, as soon as the bus takes it."""
        match progress:
            case Waiting(what):
                self._say(f"waiting: {what}")
            case RoundPlanned(plan, num_rounds):
                self._retain(self._topics.plan, plan.encode())
                self._say(f"round {plan.round} of {num_rounds}")
            case Evaluating(round_):
                self._say(f"evaluating round {round_}")
            case RoundDone(report):
                self._retain(self._topics.round, report.encode())
            case ClusterStarted():
                pass

    def receive(self, delivery: Delivery) -> None:
        """Answer a challenger; SettingsError if an older coordinator turns out to be there."""
        if delivery.topic == self._topics.coordinator_challenge:
            challenge = Challenge.decode(delivery.payload)
            if challenge.session != self._status.session:
                self._changed.put_nowait(self._topics.coordinator_status)
        elif delivery.topic == self._topics.coordinator_status:
            self._compare(delivery)

    def republish(self) -> None:
        """Publish all that is retained again, after the broker came back."""
        for topic in self._retained:
            self._changed.put_nowait(topic)

    async def publish(self) -> None:
        """Publish whatever changes, until cancelled."""
        while True:
            topic = await self._changed.get()
            await self._bus.publish(topic, self._retained[topic], retain=True)

    async def leave(self) -> None:
        """Say goodbye: the retained status becomes offline."""
        offline = self._status.model_copy(update={"state": "offline", "phase": ""})
        await self._bus.publish(self._topics.coordinator_status, offline.encode(), retain=True)

    def _compare(self, delivery: Delivery) -> None:
        try:
            seen = CoordinatorStatus.decode(delivery.payload)
        except MalformedMessageError:
            return
        match judge(self._status, seen, retained=delivery.retained):
            case Verdict.YIELD:
                raise self._claim.taken_by(seen)
            case Verdict.REASSERT:
                self._changed.put_nowait(self._topics.coordinator_status)

    def _say(self, phase: str) -> None:
        status = self._status.model_copy(update={"phase": phase})
        self._retain(self._topics.coordinator_status, status.encode())

    def _retain(self, topic: str, payload: bytes) -> None:
        self._retained[topic] = payload
        self._changed.put_nowait(topic)
