"""What transfers teach of a link: rates in seconds per bit, and only where they tell a rate."""

import math
from dataclasses import replace

import pytest

from profiles.link_estimate import (
    MIN_TELLING_BYTES,
    MIN_TELLING_FACTOR,
    LinkEstimate,
    LinkFigures,
)
from profiles.running_mean import SURPRISE_FACTOR, RunningMean

PROBED = LinkFigures(
    up_bps=8e6,
    up_deviation_bps=8e5,
    down_bps=16e6,
    down_deviation_bps=4e6,
    round_trip_s=0.05,
    round_trip_deviation_s=0.004,
    message_s=0.002,
    num_transfers=6,
)
KNOWN = LinkEstimate(num_transfers=1).after_probe(PROBED, acknowledge_s=0.02)
TELLING = 100_000


def _figures(estimate: LinkEstimate) -> LinkFigures:
    figures = estimate.figures()
    assert figures is not None
    return figures


def test_a_probes_figures_come_out_as_they_went_in() -> None:
    figures = _figures(KNOWN)
    assert figures.num_transfers == 1 + PROBED.num_transfers
    for field in ("up_bps", "up_deviation_bps", "down_bps", "down_deviation_bps", "round_trip_s"):
        assert getattr(figures, field) == pytest.approx(getattr(PROBED, field), rel=1e-12), field
    assert figures.round_trip_deviation_s == PROBED.round_trip_deviation_s
    assert figures.message_s == PROBED.message_s


def test_nothing_is_said_before_both_directions_are_known() -> None:
    nothing = LinkEstimate()
    up = nothing.after_upload(num_bytes=TELLING, acknowledged_after_s=0.5, num_messages=1)
    down = nothing.after_download(num_bytes=TELLING, arrived_within_s=0.25)
    assert [each.figures() for each in (nothing, up, down)] == [None, None, None]
    assert [each.download_s(TELLING) for each in (nothing, up, down)] == [0.0, 0.0, 0.0]
    both = _figures(up.after_download(num_bytes=TELLING, arrived_within_s=0.25))
    assert (both.up_bps, both.down_bps) == pytest.approx((1.6e6, 3.2e6), rel=1e-12)
    assert (both.round_trip_s, both.round_trip_deviation_s, both.message_s) == (0.0, 0.0, 0.0)
    assert both.num_transfers == 2


def test_an_upload_counts_less_the_fixed_seconds_and_those_of_further_messages() -> None:
    """Of half a second, 0.02 s are the broker's and 2 x 0.002 s those of two further messages."""
    taken = KNOWN.after_upload(num_bytes=TELLING, acknowledged_after_s=0.5, num_messages=3)
    assert taken.up_s_per_bit is not None
    assert taken.up_s_per_bit == RunningMean(1 / 8e6, (0.1 / 8e6) ** 2, count=3).take(
        (0.5 - 0.02 - 2 * 0.002) / (TELLING * 8)
    )
    assert taken.num_transfers == KNOWN.num_transfers + 1
    assert taken.down_s_per_bit == KNOWN.down_s_per_bit


def test_a_download_counts_whole() -> None:
    taken = KNOWN.after_download(num_bytes=TELLING, arrived_within_s=0.1)
    assert taken.down_s_per_bit == RunningMean(1 / 16e6, (0.25 / 16e6) ** 2, count=3).take(
        0.1 / (TELLING * 8)
    )
    assert taken.num_transfers == KNOWN.num_transfers + 1
    assert taken.up_s_per_bit == KNOWN.up_s_per_bit


def test_what_is_small_or_hardly_longer_than_no_bytes_at_all_tells_no_rate() -> None:
    least_s = MIN_TELLING_FACTOR * 0.02
    for num_bytes, seconds, tells in (
        (MIN_TELLING_BYTES, least_s, True),
        (MIN_TELLING_BYTES - 1, least_s, False),
        (MIN_TELLING_BYTES, math.nextafter(least_s, 0), False),
    ):
        up = KNOWN.after_upload(num_bytes=num_bytes, acknowledged_after_s=seconds, num_messages=1)
        down = KNOWN.after_download(num_bytes=num_bytes, arrived_within_s=seconds)
        assert (up != KNOWN, down != KNOWN) == (tells, tells)


def test_an_upload_of_nothing_but_overhead_is_left_out() -> None:
    """A rate of infinity or below zero would come of it."""
    per_message_s = 0.25
    slow_messages = replace(KNOWN, acknowledge_s=None, message_s=per_message_s)
    for seconds in (per_message_s * 4, per_message_s * 3):
        after = slow_messages.after_upload(
            num_bytes=TELLING, acknowledged_after_s=seconds, num_messages=5
        )
        assert after == slow_messages
    tells = slow_messages.after_upload(
        num_bytes=TELLING, acknowledged_after_s=per_message_s * 5, num_messages=5
    )
    assert tells != slow_messages


def test_a_small_message_moves_the_round_trip_and_nothing_else() -> None:
    after = KNOWN.after_small_message(acknowledged_after_s=0.04)
    mean_s = RunningMean(0.02).take(0.04).mean
    assert _figures(after).round_trip_s == pytest.approx(mean_s + 0.03, rel=1e-12)
    assert replace(after, acknowledge_s=KNOWN.acknowledge_s) == KNOWN
    assert LinkEstimate().after_small_message(acknowledged_after_s=0.1).acknowledge_s == (
        RunningMean(0.1)
    )


def test_the_larger_deviation_of_the_round_trip_counts() -> None:
    shaky = replace(KNOWN, acknowledge_s=RunningMean(0.02, variance=0.01**2))
    assert _figures(shaky).round_trip_deviation_s == pytest.approx(0.01)
    assert _figures(KNOWN).round_trip_deviation_s == PROBED.round_trip_deviation_s


def test_a_broker_that_takes_longer_than_the_coordinator_adds_nothing() -> None:
    late = LinkEstimate().after_probe(PROBED, acknowledge_s=0.08)
    assert _figures(late).round_trip_s == 0.08


def test_a_download_takes_half_a_round_trip_and_its_bits() -> None:
    assert KNOWN.download_s(2_000_000) == pytest.approx(0.05 / 2 + 1.0, rel=1e-12)


# Running means


def test_the_first_values_count_alike_and_the_later_a_quarter() -> None:
    mean = RunningMean(1.0)
    for value in (2.0, 3.0):
        mean = mean.take(value)
    assert (mean.mean, mean.variance, mean.count) == pytest.approx((2.0, 2 / 3, 3))
    steady = RunningMean(2.0, variance=1.0, count=100).take(3.0)
    assert (steady.mean, steady.variance, steady.count) == pytest.approx((2.25, 0.9375, 101))


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_one_surprise_is_an_accident_and_a_second_on_the_same_side_a_change(factor: float) -> None:
    mean = RunningMean(1.0, variance=0.01**2, count=3)
    once = mean.take(factor)
    assert once == replace(mean, surprise=factor)
    twice = once.take(1.1 * factor)
    assert (twice.mean, twice.count) == pytest.approx((1.05 * factor, 2))
    assert twice.deviation == pytest.approx(0.05 * factor)
    assert twice.surprise is None
    other_side = once.take(1 / factor)
    assert other_side == replace(mean, surprise=1 / factor)
    back = once.take(1.0)
    assert (back.mean, back.surprise, back.count) == (1.0, None, 4)


def test_what_is_few_deviations_or_a_small_factor_off_is_no_surprise() -> None:
    values = RunningMean(1.0, variance=0.25**2, count=3)
    at_bound = RunningMean(1.0, variance=0.0, count=3)
    assert values.take(1.75).surprise is None  # Three deviations off, and no more.
    assert values.take(1.76).surprise == 1.76
    assert at_bound.take(SURPRISE_FACTOR).surprise is None
    assert at_bound.take(SURPRISE_FACTOR + 0.01).surprise is not None
    assert RunningMean(1.0, count=2).take(100.0).surprise is None
