"""Both halves of the protocol against each other, whatever becomes of what they say."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from benchmarks.simulated_faults.device import Item
from runtime.protocol.coordinator_events import BusBack, BusLost, Returned, Seen, Went
from runtime.wire.chunks.questions import Inquire
from runtime.wire.commands import Join, Stop
from runtime.wire.fields import Message
from tests.pair import CoordinatorEnd, DeviceEnd
from tests.turn import ASSIGNMENT, CUT, JOIN, RUN

PLACES = st.integers(0, 3)
"""How far down a queue a fault strikes."""
MOST_STEPS = 3000
FORGED = (
    Stop(run=RUN),
    ASSIGNMENT.model_copy(update={"run": RUN + 1}),
    ASSIGNMENT.model_copy(update={"seed": 1}),
    JOIN.model_copy(update={"round": 2**32 - 1}),
)


class Pair(RuleBasedStateMachine):
    """A coordinator and a device; faults strike the wires, the device and the connections."""

    parts, aggregates = 1, False
    """Micro-batches of a mini-batch, and whether gradients are aggregated."""

    def __init__(self) -> None:
        super().__init__()
        self.coordinator = CoordinatorEnd(self.parts, aggregates=self.aggregates)
        self.device = DeviceEnd(self.parts)
        self.num_sessions, self.is_cut, self.is_away = 0, False, False
        self.updates = 0
        self.start_again()

    @rule()
    def start_again(self) -> None:
        """The device dies and is started again; what was under way is lost."""
        self.num_sessions += 1
        self.device = DeviceEnd(self.parts)
        self.coordinator.down.clear()
        self.is_away = False
        self.coordinator.arrive(str(self.num_sessions))

    @precondition(lambda self: self.coordinator.asked is None)
    @rule()
    def ask(self) -> None:
        """The coordinator goes on to what is next."""
        self.coordinator.ask()

    @rule()
    def compute(self) -> None:
        """The device does a piece of work."""
        self.device.compute()

    @rule(num=st.integers(1, 6))
    def carry(self, num: int) -> None:
        """Some messages arrive, both ways."""
        for _ in range(num):
            self._carry_one()

    @rule(place=PLACES, is_down=st.booleans())
    def lose(self, place: int, *, is_down: bool) -> None:
        """A message is lost."""
        del self._wire(is_down)[place : place + 1]

    @rule(place=PLACES, is_down=st.booleans())
    def duplicate(self, place: int, *, is_down: bool) -> None:
        """A message comes twice, the second time at the end."""
        wire = self._wire(is_down)
        wire += wire[place : place + 1]

    @rule(place=PLACES, is_down=st.booleans())
    def overtake(self, place: int, *, is_down: bool) -> None:
        """A message overtakes another."""
        wire = self._wire(is_down)
        if place + 1 < len(wire):
            wire[place], wire[place + 1] = wire[place + 1], wire[place]

    @rule(seconds=st.sampled_from((0.5, 4.0, 20.0, 70.0)))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.coordinator.wait(seconds)

    @rule(forged=st.sampled_from(FORGED))
    def forge(self, forged: Message) -> None:
        """Somebody else gives the device commands, and its coordinator has been quiet."""
        self.device.receive(forged.model_copy())

    @rule()
    def forge_this_turn(self) -> None:
        """Somebody else has it begin this very turn again, otherwise."""
        update = {"round": self.coordinator.round, "cut": CUT + 1}
        self.device.receive(JOIN.model_copy(update=update))

    @rule()
    def lose_or_find_the_device(self) -> None:
        """The device's connection breaks, or it comes back."""
        if not self.is_away:
            self.coordinator.down.clear()
        self.is_away = not self.is_away
        self.coordinator.tell(Went() if self.is_away else Returned())

    @rule()
    def lose_or_find_the_broker(self) -> None:
        """Our own connection breaks, or is there again."""
        self.is_cut = not self.is_cut
        self.coordinator.tell(BusLost() if self.is_cut else BusBack())

    @rule()
    def see(self) -> None:
        """The device says that it is there."""
        if not self.is_away:
            self.coordinator.tell(Seen())

    @invariant()
    def no_step_is_applied_twice(self) -> None:
        assert len(self.device.updates) == len(set(self.device.updates))

    @invariant()
    def nothing_grows(self) -> None:
        assert len(self.coordinator.down) < 200
        assert sum(not self.device.is_over(each) for each in self.device.work) <= 3

    def teardown(self) -> None:
        """Once faults cease, a whole turn comes to its end, the next one to begin at the latest."""
        if self.is_cut:
            self.lose_or_find_the_broker()
        if self.is_away:
            self.lose_or_find_the_device()
        before = len(self.coordinator.turns)
        for _ in range(MOST_STEPS):
            if len(self.coordinator.turns) > before + 1:
                return
            if self.coordinator.asked is None:
                self.coordinator.ask()
            self._carry_one()
            self.device.compute()
            if not (self.coordinator.down or self.device.up or self.device.work):
                self.coordinator.wait(1.0)
        raise AssertionError(self.coordinator.given_up[-3:])

    def _carry_one(self) -> None:
        if self.is_cut or self.is_away:
            return
        down, up = self.coordinator.down, self.device.up
        if down:
            self.device.receive(down.pop(0))
        if up:
            self.coordinator.receive(up.pop(0))

    def _wire(self, is_down: bool) -> list[Item]:  # noqa: FBT001 - both rules draw it
        return self.coordinator.down if is_down else self.device.up


class PartedPair(Pair):
    """The same, with mini-batches in three parts."""

    parts = 3


class AggregatedPair(Pair):
    """The same, with gradients in two frames: that of all devices, and the device's own."""

    aggregates = True


TestPair = Pair.TestCase
TestPair.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
TestPartedPair = PartedPair.TestCase
TestPartedPair.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
TestAggregatedPair = AggregatedPair.TestCase
TestAggregatedPair.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)


KINDS = pytest.mark.parametrize(
    ("parts", "aggregates"),
    [(1, False), (3, False), (1, True), (3, True)],
    ids=["whole", "parts", "for_all", "parts_for_all"],
)


def _take_turns(coordinator: CoordinatorEnd, device: DeviceEnd, *, item_s: float) -> list[Item]:
    """Take three turns over wires that carry a message in so many seconds; all that was sent."""
    carried: list[Item] = []
    coordinator.arrive("one")
    while len(coordinator.turns) < 3 and not coordinator.given_up:
        if coordinator.asked is None:
            coordinator.ask()
        coordinator.wait(item_s)
        device.compute()
        for wire, receive in ((coordinator.down, device.receive), (device.up, coordinator.receive)):
            if wire:
                carried.append(wire.pop(0))
                receive(carried[-1])
    return carried


@KINDS
@pytest.mark.parametrize("item_s", [0.01, 1.0, 5.0, 10.0])
def test_however_slow_the_wires_no_chunk_goes_twice_and_nobody_is_lost(
    item_s: float, parts: int, *, aggregates: bool
) -> None:
    coordinator, device = CoordinatorEnd(parts, aggregates=aggregates), DeviceEnd(parts)
    carried = _take_turns(coordinator, device, item_s=item_s)
    chunks = [item for item in carried if isinstance(item, bytes)]
    assert len(chunks) == len(set(chunks))
    assert not coordinator.given_up
    questions = [item for item in carried if isinstance(item, Inquire)]
    assert bool(questions) == (item_s > 3.0)
    assert len(questions) < len(chunks)


@KINDS
def test_what_was_lost_and_that_alone_goes_again(parts: int, *, aggregates: bool) -> None:
    coordinator, device = CoordinatorEnd(parts, aggregates=aggregates), DeviceEnd(parts)
    coordinator.arrive("one")
    lost: list[Item] = []
    carried: list[Item] = []
    while not coordinator.turns:
        if coordinator.asked is None:
            coordinator.ask()
        coordinator.wait(1.0)
        device.compute()
        for wire, receive in ((coordinator.down, device.receive), (device.up, coordinator.receive)):
            item = wire.pop(0) if wire else None
            if isinstance(item, bytes) and item not in lost and len(carried) % 3 == 0:
                lost.append(item)
            if item is not None:
                carried.append(item)
                if item not in lost or carried.count(item) > 1:
                    receive(item)
    again = [item for item in carried if isinstance(item, bytes) and carried.count(item) > 1]
    assert lost
    assert set(again) == set(lost)
    assert len(again) == 2 * len(lost)
    assert not coordinator.given_up


def test_a_late_device_is_asked_for_nothing_until_it_has_answered() -> None:
    coordinator, device = CoordinatorEnd(), DeviceEnd()
    coordinator.arrive("one")
    while coordinator.next != 0:
        if coordinator.asked is None:
            coordinator.ask()
        for wire, receive in ((coordinator.down, device.receive), (device.up, coordinator.receive)):
            if wire:
                receive(wire.pop(0))
        device.compute()
    coordinator.ask()
    coordinator.wait(61.0)
    assert coordinator.session.state.name == "LATE"
    assert coordinator.session.why_busy == "was late, and is at its answer of round 1 still"
    assert isinstance(coordinator.next, Join)
    coordinator.ask()
    assert coordinator.given_up[1:] == ["is not there any more"]
    while coordinator.down or device.up or device.work:
        if coordinator.down:
            device.receive(coordinator.down.pop(0))
        device.compute()
        if device.up:
            coordinator.receive(device.up.pop(0))
    assert coordinator.session.state.name == "IDLE"
