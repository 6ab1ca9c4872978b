"""Spans of what a run does, for tools that show traces; none are recorded unless asked for.

A trace is a round, a span of it a cluster's turn, below that a step (a local epoch), below that
what a device or the server did for it. Ids follow from the numbers that every frame's header has
anyway (run, round, cluster, epoch), so coordinator and devices name the same step alike, each by
itself, and nothing of a trace travels between them. As with logging, there is one recorder for the
process, and only a command line sets it.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

Attributes = Mapping[str, str | int | float]


class StepPlace(Protocol):
    """What a frame's header says of its place in a run."""

    @property
    def run(self) -> int:
        """Of the run."""
        ...

    @property
    def round(self) -> int:
        """From 1."""
        ...

    @property
    def cluster(self) -> int:
        """Number of the turn in its round, one that is tried again included."""
        ...

    @property
    def epoch(self) -> int:
        """The local epoch, from 0."""
        ...


@dataclass(frozen=True)
class Span:
    """Something that is over."""

    name: str
    trace_id: int
    """128 bits."""
    start_unix_ns: int
    end_unix_ns: int
    attributes: Attributes
    span_id: int | None = None
    """64 bits; None if no other span names it."""
    parent_id: int | None = None


class Recorder(Protocol):
    """Takes spans, from any thread, and does not make anybody wait."""

    def take(self, span: Span) -> None:
        """Keep a span."""
        ...


def trace_id(run: int, round_: int) -> int:
    """Name the trace of a round."""
    return int.from_bytes(_digest("trace", run, round_)[:16], "big")


def step_id(step: StepPlace) -> int:
    """Name the span of a step: what devices and the server do for it is below."""
    return _span_id("step", step.run, step.round, step.cluster, step.epoch)


def turn_id(step: StepPlace) -> int:
    """Name the span of a cluster's turn."""
    return _span_id("turn", step.run, step.round, step.cluster)


def round_id(step: StepPlace) -> int:
    """Name the span of a round."""
    return _span_id("round", step.run, step.round)


def part_of(
    step: StepPlace, name: str, *, seconds: float, attributes: Attributes, ago_s: float = 0.0
) -> None:
    """Record what took so long for a step, and was over so long ago."""
    if _recorder is None:
        return
    end_ns = time.time_ns() - round(ago_s * 1e9)
    start_ns = end_ns - round(seconds * 1e9)
    of_round = trace_id(step.run, step.round)
    record(Span(name, of_round, start_ns, end_ns, attributes, parent_id=step_id(step)))


def record(span: Span) -> None:
    """Record a span, if anybody asked for them."""
    if _recorder is not None:
        _recorder.take(span)


def is_recording() -> bool:
    """Whether anybody asked for spans."""
    return _recorder is not None


@contextmanager
def recorded_by(recorder: Recorder | None) -> Iterator[None]:
    """Have this one take all spans of the process, for the length of the block."""
    global _recorder  # noqa: PLW0603 - as the root logger
    before, _recorder = _recorder, recorder
    try:
        yield
    finally:
        _recorder = before


_recorder: Recorder | None = None


def _digest(*parts: object) -> bytes:
    return sha256("/".join(map(str, parts)).encode()).digest()


def _span_id(*parts: object) -> int:
    return int.from_bytes(_digest(*parts)[:8], "big")
