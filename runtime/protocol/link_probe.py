"""Measuring a link: which transfers to make, and what their seconds say of the link.

An exchange is a transfer up and one down, either of which may be empty: the device sends so many
bytes and the coordinator, when it has them all, answers with as many as it was asked for. Empty
ones give the round trip. A direction's rate is the difference in bytes between two sizes over the
difference in seconds, so whatever every exchange costs (latency, the first bytes that a full
bucket lets through) falls out.

Whoever is far away has time for few exchanges: the empty ones end after a part of the seconds, and
no transfer begins that the rest would not suffice for. A direction in which nothing arrived makes
the measurement fail, and what failed has shown something too: fewer bytes than so many arrived
within so many seconds.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import inf
from statistics import median

import numpy as np

from profiles.link_estimate import LinkFigures
from profiles.units import BITS_PER_BYTE
from runtime.errors import EdgeError
from runtime.wire.frames import Frame, FrameKind, StepId, Tensor, TensorSpec

MAX_PROBE_S = 3.0
"""The longest that a probe may take."""
TELLING_S = 0.2
"""Transfers grow until one takes this long."""
MESSAGES_IN_FLIGHT = 4

_FIRST_BYTES = 4_000
_NUM_EMPTY = 8
_EMPTY_FRACTION = 0.2
"""Part of the seconds after which no more empty exchanges begin."""
_NUM_SPLIT = 3
_SPLIT_FRACTION = 0.1
"""The same for split ones; and where one alone would take longer, a message is taken for free."""
_PATIENCE_S = 1.0
_MAX_GROWTH = 8.0
_NORMAL_DEVIATION = 1.4826
"""A normal distribution's deviation over its median absolute deviation."""


class LinkProbeError(EdgeError):
    """A link that could not be measured; says why, and what the link is at best."""

    def __init__(self, message: str, at_best: LinkFigures | None = None) -> None:
        super().__init__(message)
        self.at_best = at_best


@dataclass(frozen=True)
class Transfer:
    """One exchange to make."""

    up_bytes: int = 0
    down_bytes: int = 0
    num_messages: int = 1
    """An empty one may be sent in several messages, to learn what a message costs."""
    patience_s: float = _PATIENCE_S
    """When to take it for lost."""


@dataclass(frozen=True)
class Sample:
    """An exchange as it went."""

    num_bytes: int
    seconds: float


Survey = Generator[Transfer, float | None, LinkFigures]
"""Yields exchanges; takes the seconds of each, or None if it was lost."""


_BLOCK = np.random.default_rng(0).integers(0, 256, 65_521, dtype=np.uint8)


def probe_frame(step: StepId, *, note: int) -> Frame:
    """Frame of `step.round` bytes that do not compress, and one number."""
    padding: Tensor = np.resize(_BLOCK, step.round)
    return Frame(FrameKind.PROBE, step, (padding, np.array([note], dtype="<i8")))


def probe_specs(num_bytes: int) -> tuple[TensorSpec, ...]:
    """Tensors of a probe's frame: padding, and one number.

    The number is the bytes asked for on the way up, the bytes received on the way down.
    """
    return TensorSpec("|u1", (num_bytes,)), TensorSpec("<i8", (1,))


def survey_link(*, budget_bytes: int, budget_s: float) -> Survey:
    """Measure both directions within so many bytes and seconds; LinkProbeError if nothing works."""
    round_trips_s = yield from _repeat(Transfer(), _NUM_EMPTY, most_s=_EMPTY_FRACTION * budget_s)
    if not round_trips_s:
        raise LinkProbeError("no answer to empty messages", _at_best(_PATIENCE_S, inf, inf))
    round_trip_s = median(round_trips_s)
    split_s = yield from _split(round_trip_s, most_s=_SPLIT_FRACTION * budget_s)
    extra_s = median(split_s) - round_trip_s if split_s else 0.0
    left_s = budget_s - sum(round_trips_s) - sum(split_s)
    up = yield from _survey_direction(
        Transfer(up_bytes=1), round_trip_s, budget_bytes=budget_bytes // 2, budget_s=left_s / 2
    )
    left_s -= sum(sample.seconds for sample in up) if up else left_s / 2
    down = yield from _survey_direction(
        Transfer(down_bytes=1), round_trip_s, budget_bytes=budget_bytes // 2, budget_s=left_s
    )
    empty = [Sample(0, seconds) for seconds in round_trips_s]
    if not up or not down:
        raise _failure(up, down, empty, lost_bytes=_first_bytes(budget_bytes // 2))
    up_bps, up_deviation_bps = estimate_rate(up, empty)
    down_bps, down_deviation_bps = estimate_rate(down, empty)
    return LinkFigures(
        up_bps=up_bps,
        up_deviation_bps=up_deviation_bps,
        down_bps=down_bps,
        down_deviation_bps=down_deviation_bps,
        round_trip_s=round_trip_s,
        round_trip_deviation_s=_spread(round_trips_s),
        message_s=max(0.0, extra_s / (MESSAGES_IN_FLIGHT - 1)),
        num_transfers=len(round_trips_s) + len(split_s) + len(up) + len(down),
    )


def _failure(
    up: Sequence[Sample], down: Sequence[Sample], empty: Sequence[Sample], *, lost_bytes: int
) -> LinkProbeError:
    """Say which direction let nothing through, and what the link is at best."""
    lost_bps = lost_bytes * BITS_PER_BYTE / _PATIENCE_S
    up_bps, down_bps = (
        estimate_rate(samples, empty)[0] if samples else lost_bps for samples in (up, down)
    )
    what = "down" if up else "up"
    round_trip_s = median(sample.seconds for sample in empty)
    return LinkProbeError(
        f"no transfer {what} was answered", _at_best(round_trip_s, up_bps, down_bps)
    )


def _at_best(round_trip_s: float, up_bps: float, down_bps: float) -> LinkFigures:
    return LinkFigures(up_bps, 0.0, down_bps, 0.0, round_trip_s, 0.0, 0.0, 0)


def estimate_rate(samples: Sequence[Sample], empty: Sequence[Sample]) -> tuple[float, float]:
    """Bits per second and their deviation, from exchanges of several sizes.

    The fastest of the largest is compared with the fastest a quarter as large, since whatever
    else these machines do only ever adds. Where even the largest are short, noise counts more
    than the first bytes of a bucket, and they are compared with the empty ones. Where they drown
    in noise, they give a lower bound.
    """
    most = max(sample.num_bytes for sample in samples)
    large = [sample for sample in samples if sample.num_bytes == most]
    quarter = [sample for sample in samples if most <= 5 * sample.num_bytes <= 3 * most]
    is_short = _fastest(large).seconds - _fastest(empty).seconds < TELLING_S / 2
    small = empty if is_short or not quarter else quarter
    s_per_bit = _s_per_bit(_fastest(large), _fastest(small))
    if s_per_bit <= 0:
        rate_bps = most * BITS_PER_BYTE / _fastest(large).seconds
        return rate_bps, rate_bps
    pairs = [_s_per_bit(one, other) for one, other in product(large, small)]
    # Few repetitions may agree by chance: the fastest is at least as far off as the typical one.
    deviation = max(_spread(pairs), median(pairs) - s_per_bit)
    return 1 / s_per_bit, deviation / s_per_bit**2


def _fastest(samples: Sequence[Sample]) -> Sample:
    return min(samples, key=lambda sample: sample.seconds)


def _s_per_bit(large: Sample, small: Sample) -> float:
    num_bits = (large.num_bytes - small.num_bytes) * BITS_PER_BYTE
    return (large.seconds - small.seconds) / num_bits


def _repeat(
    transfer: Transfer, times: int, *, most_s: float
) -> Generator[Transfer, float | None, list[float]]:
    """Make the same exchange again for so many times or seconds; give up at the second lost."""
    taken_s: list[float] = []
    num_lost = 0
    while len(taken_s) < times and sum(taken_s) < most_s and num_lost < 2:
        seconds = yield transfer
        if seconds is None:
            num_lost += 1
        else:
            taken_s.append(seconds)
    return taken_s


def _split(round_trip_s: float, *, most_s: float) -> Generator[Transfer, float | None, list[float]]:
    """Make empty exchanges of several messages, if there is the time for one."""
    if round_trip_s > most_s:
        return []
    split = Transfer(num_messages=MESSAGES_IN_FLIGHT)
    return (yield from _repeat(split, _NUM_SPLIT, most_s=most_s))


def _survey_direction(
    unit: Transfer, round_trip_s: float, *, budget_bytes: int, budget_s: float
) -> Generator[Transfer, float | None, list[Sample]]:
    """Grow until a transfer takes long enough or the bytes run out, then repeat.

    Long ones take turns with a quarter of their size; short ones need every repetition there is.
    """
    samples: list[Sample] = []
    size = _first_bytes(budget_bytes)
    patience_s = max(_PATIENCE_S, budget_s)
    while size:
        seconds = yield _sized(unit, size, patience_s=patience_s)
        if seconds is None:
            return samples
        samples.append(Sample(size, seconds))
        size = _next_size(samples, round_trip_s, budget_bytes=budget_bytes, budget_s=budget_s)
    most = samples[-1]
    bits_s = max(most.seconds - round_trip_s, 0.0)
    is_short = bits_s < TELLING_S / 2
    for fraction in (1.0,) * 4 if is_short else (0.25, 1.0) * 3:
        size = max(1, int(most.num_bytes * fraction))
        spent_bytes = sum(sample.num_bytes for sample in samples) + size
        spent_s = sum(sample.seconds for sample in samples) + round_trip_s + bits_s * fraction
        if spent_bytes > budget_bytes or spent_s > budget_s:
            break
        seconds = yield _sized(unit, size, patience_s=patience_s)
        if seconds is None:
            break
        samples.append(Sample(size, seconds))
    return samples


def _first_bytes(budget_bytes: int) -> int:
    return max(2, min(_FIRST_BYTES, budget_bytes // 24))


def _next_size(
    samples: Sequence[Sample], round_trip_s: float, *, budget_bytes: int, budget_s: float
) -> int:
    """Bytes of a larger transfer; 0 if there is none.

    It leaves room for two more of its size, except where the round trip takes most of the time.
    """
    last = samples[-1]
    bits_s = max(last.seconds - round_trip_s, last.seconds / 10)
    left_bytes = budget_bytes - sum(sample.num_bytes for sample in samples)
    left_s = budget_s - sum(sample.seconds for sample in samples)
    telling_s = min(TELLING_S, left_s / 3, left_s - round_trip_s)
    growth = min(_MAX_GROWTH, telling_s / bits_s)
    size = min(int(last.num_bytes * growth), left_bytes // 3)
    return size if 2 * size >= 3 * last.num_bytes else 0


def _sized(unit: Transfer, size: int, *, patience_s: float) -> Transfer:
    return replace(
        unit,
        up_bytes=unit.up_bytes * size,
        down_bytes=unit.down_bytes * size,
        patience_s=patience_s,
    )


def _spread(values: Sequence[float]) -> float:
    """Deviation by the median of absolute deviations, which an outlier does not move."""
    middle = median(values)
    return _NORMAL_DEVIATION * median(abs(value - middle) for value in values)
