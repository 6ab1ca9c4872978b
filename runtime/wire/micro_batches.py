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


@dataclass(frozen=True)
class FirstSamples:
    """The first samples of each mini-batch of a cluster, which are aggregated over its devices.

    They are micro-batches of their own, the same ones on all devices, whatever else these have.
    """

    count: int
    micro_batches: int

    @classmethod
    def of(cls, count: int, *, micro_batches: int, batch_size: int) -> "FirstSamples":
        """Give them their part of the micro-batches that the job's mini-batches go in."""
        return cls(count, max(1, min(micro_batches * count // batch_size, count)))

    def parts(self) -> tuple[Rows, ...]:
        """Which of them each micro-batch holds."""
        return parted(self.count, self.micro_batches)


def parted(
    num_samples: int, micro_batches: int, first: FirstSamples | None = None
) -> tuple[Rows, ...]:
    """Part a mini-batch as evenly as possible, the larger micro-batches first.

    There are fewer of them where there are fewer samples; samples that are aggregated are apart.
    """
    if first is None:
        ends = _ends(0, num_samples, micro_batches)
    else:
        count = min(first.count, num_samples)
        ends = _ends(0, count, first.micro_batches)
        if count < num_samples:
            ends += _ends(count, num_samples, micro_batches - first.micro_batches)[1:]
    return tuple(Rows(start, stop, num_samples) for start, stop in pairwise(ends))


def _ends(start: int, stop: int, parts: int) -> list[int]:
    """Where parts of some rows begin and end."""
    count = max(1, min(parts, stop - start))
    size, larger = divmod(stop - start, count)
    return [start + index * size + min(index, larger) for index in range(count + 1)]


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
