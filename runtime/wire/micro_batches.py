"""How a mini-batch is parted into micro-batches: equally on the device and on the server.

Micro-batches of a mini-batch are in the order of its samples, and their sums in the order of the
micro-batches. So the numbers do not depend on when each of them came.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil

MOST_SAMPLES = 65_536
"""Of a mini-batch."""

MOST_MICRO_BATCHES = 64
"""Of one mini-batch; each is a frame, and a device holds the frames of one local epoch."""


@dataclass(frozen=True)
class Rows:
    """Which samples of a mini-batch a micro-batch holds."""

    start: int
    stop: int
    of: int
    """Samples of the mini-batch."""

    def __len__(self) -> int:
        """How many samples there are in it."""
        return self.stop - self.start

    @classmethod
    def all(cls, num_samples: int) -> "Rows":
        """Take the whole mini-batch."""
        return cls(0, num_samples, num_samples)


def parted(num_samples: int, micro_batches: int) -> tuple[Rows, ...]:
    """Part a mini-batch as evenly as possible, the larger micro-batches first.

    There are fewer of them where there are fewer samples.
    """
    count = max(1, min(micro_batches, num_samples))
    size, larger = divmod(num_samples, count)
    starts = [index * size + min(index, larger) for index in range(count + 1)]
    return tuple(Rows(start, stop, num_samples) for start, stop in pairwise(starts))


def num_aggregated(phi: float, batch_sizes: Sequence[int]) -> int:
    """How many samples of each device of a cluster are aggregated: ceil(phi b), of the smallest b.

    None where there is nobody to aggregate with. Phi is taken as the decimal that it is written as.
    """
    if len(batch_sizes) < 2:
        return 0
    return ceil(Fraction(str(phi)) * min(batch_sizes))


def gradient_rows(micro_batches: Sequence[Rows], aggregated: int | None) -> tuple[Rows, ...]:
    """Which samples each frame of a mini-batch's gradient is of.

    One for each micro-batch; of a whole mini-batch whose first samples are aggregated, theirs, and
    one for the rest if there is any.
    """
    if aggregated is None:
        return tuple(micro_batches)
    (whole,) = micro_batches
    ends = sorted({0, min(aggregated, whole.of), whole.of})
    return tuple(Rows(start, stop, whole.of) for start, stop in pairwise(ends))
