"""Memory that hostile messages take, and how they are delivered."""

import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.bus.bus import Delivery
from tests.hostile.mutants import Mutant
from tests.turn import Original

NUM_CASES = int(os.environ.get("CPSL_FUZZ_CASES", "10000"))
"""Mutants in all; a long run takes 1,000,000."""


class Meter:
    """The most memory that one message took, above what its size and its frame's allow."""

    def __init__(self) -> None:
        self.num_cases = 0
        self.peak_bytes = 0

    @contextmanager
    def one(self, mutant: Mutant, *, body_bytes: int) -> Iterator[None]:
        """Measure one message whose frame has so many bytes."""
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        yield
        taken = tracemalloc.get_traced_memory()[1] - before
        allowed = 2 * body_bytes + 4 * len(mutant.payload) + 65_536
        assert taken <= allowed, f"{mutant.damage}: {taken} bytes, {allowed} allowed"
        self.num_cases += 1
        self.peak_bytes = max(self.peak_bytes, taken)


@contextmanager
def traced_memory() -> Iterator[Meter]:
    """Count the memory that is taken from here on."""
    tracemalloc.start()
    try:
        yield Meter()
    finally:
        tracemalloc.stop()


def delivered(message: Original | Mutant) -> Delivery:
    """What a bus makes of a message."""
    return Delivery(message.topic, memoryview(message.payload), retained=False)
