"""Spans of whole runs: one tree a round, to which coordinator and devices add each by itself."""

from collections import Counter

import pytest

from runtime.bus.memory_bus import MemoryBroker
from runtime.service.spans import Span, recorded_by, round_id, step_id, trace_id, turn_id
from runtime.wire.frames import StepId
from tests.builders import run_job, same_bits, weights_of
from tests.noise import shards

RUN = 7
SETTINGS: dict[str, object] = {"model.name": "mlp", "plan.cut": "fc1", "plan.clusters": 1}
OF_A_STEP = Counter(
    {
        "forward": 2,
        "upload smashed data": 2,
        "server": 1,
        "download gradient": 2,
        "backward": 2,
    }
)


class Spans:
    """Keeps what is recorded."""

    def __init__(self) -> None:
        self.all: list[Span] = []

    def take(self, span: Span) -> None:
        self.all.append(span)

    def below(self, parent: int) -> list[Span]:
        """Give the spans right below this one."""
        return [span for span in self.all if span.parent_id == parent]


def _names(spans: list[Span]) -> Counter[str]:
    return Counter(span.name for span in spans)


async def test_each_step_holds_what_the_server_and_every_device_did_for_it() -> None:
    spans = Spans()
    settings = SETTINGS | {"training.rounds": 1, "training.local_epochs": 2}
    with recorded_by(spans):
        await run_job(shards((40, 40), (1, 28, 28)), settings, broker=MemoryBroker())
    first = StepId(RUN, 1, 0, 0)
    (round_,) = [span for span in spans.all if span.name == "round"]
    assert (round_.trace_id, round_.span_id) == (trace_id(RUN, 1), round_id(first))
    assert [span.span_id for span in spans.below(round_id(first))] == [turn_id(first)]
    steps = spans.below(turn_id(first))
    assert [span.span_id for span in steps] == [step_id(StepId(RUN, 1, 0, e)) for e in (0, 1)]
    parts = [spans.below(step_id(StepId(RUN, 1, 0, epoch))) for epoch in (0, 1)]
    assert _names(parts[0]) == OF_A_STEP + Counter({"download model": 2})
    assert _names(parts[1]) == OF_A_STEP + Counter({"upload model": 2})
    for epoch, step in enumerate(steps):
        # Each device in its order, and inside of the step, the clocks being one here.
        for device in ("d0", "d1"):
            own = [span for span in parts[epoch] if span.attributes.get("device") == device]
            begins = {span.name: span.start_unix_ns for span in own}
            assert begins["forward"] < begins["upload smashed data"] < begins["backward"]
            assert all(step.start_unix_ns <= begin <= step.end_unix_ns for begin in begins.values())
    assert steps[1].start_unix_ns < steps[0].end_unix_ns


@pytest.mark.parametrize(
    "changes",
    [
        {"training.micro_batches": 2, "training.local_epochs": 2},
        {"training.method": "fl", "training.local_epochs": 2, "plan.cut": None},
        {"data.test": "devices", "training.local_epochs": 1},
    ],
    ids=["micro-batches", "on the devices", "evaluated there"],
)
async def test_no_span_is_without_what_it_belongs_to_and_weights_are_the_same(
    changes: dict[str, object],
) -> None:
    settings = SETTINGS | {"training.rounds": 2} | changes
    settings = {name: value for name, value in settings.items() if value is not None}
    own, spans = shards((40, 40), (1, 28, 28)), Spans()
    with recorded_by(spans):
        recorded, _ = await run_job(own, settings, broker=MemoryBroker())
    ids = {span.span_id for span in spans.all}
    assert {span.name for span in spans.all if span.parent_id is None} == {"round"}
    assert not [span for span in spans.all if span.parent_id not in {None, *ids}]
    assert {span.trace_id for span in spans.all} == {trace_id(RUN, 1), trace_id(RUN, 2)}
    named = [span.span_id for span in spans.all if span.span_id is not None]
    assert len(named) == len(set(named))
    plain, _ = await run_job(own, settings, broker=MemoryBroker())
    assert same_bits(weights_of(recorded), weights_of(plain))
