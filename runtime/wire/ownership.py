"""Who owns an id, decided above MQTT, by a session token in a retained status.

A broker throws out the older of two clients with one client id, for ever; so client ids are
unique, and two programs that want one device id (or two coordinators of one site) find out from
the status topic. Whoever is there stays: a program that has answered all along yields to nobody,
whatever a status claims; one that was away (no connection, or asleep) yields to whoever took its
place. Only of two that start at the same moment the session that began first stays. Nobody yields
to a single status, which may be a dead program's or forged: it is contradicted, and a program that
is really there contradicts in turn.
"""

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, Protocol, TypeVar

from runtime.bus.bus import Bus, BusEvent, Connected, Delivery
from runtime.errors import MalformedMessageError, SettingsError, TakenError
from runtime.wire.commands import Challenge

ECHO_S = 5.0
"""How long our own challenge may take to come back from the broker."""
NUM_CHALLENGES = 4
"""How often that is tried: connections may break meanwhile."""
PATIENCE_S = 3.0
"""How long the owner of an id may take to say so."""


class Status(Protocol):
    """What the status messages of devices and coordinators have in common."""

    @property
    def state(self) -> str:
        """`online` or `offline`."""
        ...

    @property
    def session(self) -> str:
        """Token of one start of a program."""
        ...

    @property
    def since_unix_s(self) -> float:
        """When that session began."""
        ...


AnyStatus = TypeVar("AnyStatus", bound=Status)


SETTLE_S = 2 * PATIENCE_S
"""How long after its claim a program may meet another that claimed at the same moment."""
STALLED_S = PATIENCE_S
"""Whoever has done nothing for so long may have missed a challenge."""
RETURN_S = 10.0
"""How long a program that was away listens to whoever may have taken its place."""


class Verdict(Enum):
    """What to do about a status on one's own status topic."""

    IGNORE = auto()
    REASSERT = auto()
    """Publish one's own status again."""
    YIELD = auto()
    """The id belongs to another program."""


def new_session() -> str:
    """Make a token for one start of a program."""
    return secrets.token_hex(8)


class Tenure:
    """Whether a program has held its id all along; times are of a clock that runs in sleep too."""

    def __init__(self, *, now_s: float) -> None:
        """Begin with the claim."""
        self._settled_s = now_s + SETTLE_S
        self._alive_s = now_s
        self._back_until_s = -math.inf
        self._contradicted = ""
        """Session of whoever we might yield to, once our own status has gone against it."""
        self._is_known = False
        """Whether that status of ours has come back since, so that the other has seen it too."""

    def note_alive(self, now_s: float) -> None:
        """Take note that this program runs, several times in `STALLED_S`."""
        if now_s - self._alive_s > STALLED_S:
            self._back_until_s = now_s + RETURN_S
        self._alive_s = now_s

    def note_return(self, now_s: float) -> None:
        """Take note that the connection is back."""
        self.note_alive(now_s)
        self._back_until_s = now_s + RETURN_S

    def judge(self, own: Status, seen: Status, *, retained: bool, now_s: float) -> Verdict:
        """Compare one's own status with one that was seen on its topic."""
        self.note_alive(now_s)
        if seen.session == own.session:  # It may be the will of a connection of before, or forged.
            self._is_known = seen.state == own.state
            return Verdict.IGNORE if self._is_known else Verdict.REASSERT
        is_back = now_s < self._back_until_s  # Others may have claimed the id meanwhile.
        if retained and not is_back:
            return Verdict.IGNORE
        is_older = (seen.since_unix_s, seen.session) < (own.since_unix_s, own.session)
        is_before_us = is_back or (is_older and now_s < self._settled_s)
        if seen.state == "online" and is_before_us:
            if self._contradicted == seen.session and self._is_known and not retained:
                return Verdict.YIELD
            self._contradicted, self._is_known = seen.session, False
        return Verdict.REASSERT


def clock_s() -> float:
    """Seconds of a clock that goes on while the machine sleeps, where there is one."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


async def keep_alive(tenure: Tenure) -> None:
    """Take note that this program runs, until cancelled."""
    while True:
        tenure.note_alive(clock_s())
        await asyncio.sleep(STALLED_S / 4)


@dataclass(frozen=True)
class Claim(Generic[AnyStatus]):
    """An id that a program wants to own."""

    what: str
    """For people: `device id 'pi-1'`."""
    status_topic: str
    challenge_topic: str
    """Where the owner listens; whoever wants the id challenges it here, itself included."""
    own: AnyStatus
    decode: Callable[[memoryview], AnyStatus]

    async def make(self, bus: Bus, events: AsyncIterator[BusEvent]) -> None:
        """Own the id, or raise TakenError because another program answers for it."""
        await bus.subscribe(self.status_topic)
        await bus.subscribe(self.challenge_topic)
        owner = await self._previous_owner(bus, events)
        if owner is None:
            return
        try:
            async with asyncio.timeout(PATIENCE_S):
                async for event in events:
                    self._yield_if_answered(event, owner)
        except TimeoutError:
            return  # Nobody answers for it: what is retained is a dead session's.

    def taken_by(self, seen: AnyStatus) -> TakenError:
        """Say that the id is another's."""
        return TakenError(
            f"the {self.what} is in use by another program (session {seen.session}); "
            "stop that one, or take another"
        )

    async def _previous_owner(self, bus: Bus, events: AsyncIterator[BusEvent]) -> AnyStatus | None:
        """Who is retained as online, known for sure once our own challenge has come back."""
        challenge = Challenge(session=self.own.session).encode()
        owner = None
        for _ in range(NUM_CHALLENGES):
            await bus.publish(self.challenge_topic, challenge, retain=False)
            try:
                async with asyncio.timeout(ECHO_S):
                    async for event in events:
                        match event:
                            case Connected():  # What was on its way to us is lost.
                                break
                            case Delivery(topic, payload) if topic == self.challenge_topic:
                                if payload == challenge:
                                    return owner
                            case Delivery(topic, payload) if topic == self.status_topic:
                                owner = self._online(payload)
            except TimeoutError:
                continue
        raise SettingsError(
            f"what we publish on {self.challenge_topic} does not come back: the broker's access "
            f"list has to let the {self.what} read and write there"
        )

    def _online(self, payload: memoryview) -> AnyStatus | None:
        try:
            status = self.decode(payload)
        except MalformedMessageError:
            return None  # Nobody of ours wrote that.
        is_other = status.state == "online" and status.session != self.own.session
        return status if is_other else None

    def _yield_if_answered(self, event: BusEvent, owner: AnyStatus) -> None:
        # What is retained comes again with every new connection, and answers nothing.
        if isinstance(event, Delivery) and event.topic == self.status_topic and not event.retained:
            status = self._online(event.payload)
            if status is not None and status.session == owner.session:
                raise self.taken_by(status)
