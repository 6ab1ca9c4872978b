"""What a probe and the transfers of training say of a link that is known."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from device_agent.agent.publisher import link_profile_of
from profiles.link_estimate import LinkEstimate, LinkFigures
from profiles.running_mean import RunningMean
from runtime.protocol.link_probe import LinkProbeError, Survey, Transfer, survey_link
from runtime.wire.fields import LEAST_RATE, MAX_BPS

Link = Callable[[Transfer], float | None]


def _run(survey: Survey, link: Link) -> tuple[LinkFigures, list[Transfer]]:
    made: list[Transfer] = []
    transfer = next(survey)
    while True:
        made.append(transfer)
        try:
            transfer = survey.send(link(transfer))
        except StopIteration as finished:
            figures: LinkFigures = finished.value
            return figures, made


def _link(
    *, up_bps: float, down_bps: float, rtt_s: float, free_bytes: int = 0, noise: float = 0.0
) -> Link:
    generator = np.random.default_rng(1)

    def exchange(transfer: Transfer) -> float:
        up_s = max(0, transfer.up_bytes - free_bytes) * 8 / up_bps
        down_s = max(0, transfer.down_bytes - free_bytes) * 8 / down_bps
        messages_s = 0.001 * (transfer.num_messages - 1)
        return (rtt_s + up_s + down_s + messages_s) * (1 + noise * generator.exponential())

    return exchange


@pytest.mark.parametrize("up_bps", [1e6, 2e7, 1e8])
@pytest.mark.parametrize("down_bps", [1e6, 1e8])
@pytest.mark.parametrize("rtt_s", [0.0005, 0.05])
def test_a_survey_finds_rates_round_trip_and_cost_of_a_message_within_its_budget(
    up_bps: float, down_bps: float, rtt_s: float
) -> None:
    link = _link(up_bps=up_bps, down_bps=down_bps, rtt_s=rtt_s, noise=0.01)
    figures, made = _run(survey_link(budget_bytes=40_000_000, budget_s=3.0), link)
    assert figures.up_bps == pytest.approx(up_bps, rel=0.05)
    assert figures.down_bps == pytest.approx(down_bps, rel=0.05)
    assert figures.round_trip_s == pytest.approx(rtt_s, rel=0.05)
    assert figures.message_s == pytest.approx(0.001, rel=0.5)
    assert sum(transfer.up_bytes + transfer.down_bytes for transfer in made) <= 40_000_000
    exact = _link(up_bps=up_bps, down_bps=down_bps, rtt_s=rtt_s)
    assert sum(exact(transfer) or 0.0 for transfer in made) < 3.0


def test_what_a_full_bucket_lets_through_does_not_count() -> None:
    link = _link(up_bps=1e6, down_bps=1e6, rtt_s=0.001, free_bytes=5_000)
    figures, _ = _run(survey_link(budget_bytes=1_000_000, budget_s=3.0), link)
    assert figures.up_bps == pytest.approx(1e6, rel=0.02)


def test_few_bytes_are_never_exceeded_and_still_give_an_estimate() -> None:
    link = _link(up_bps=2e7, down_bps=2e7, rtt_s=0.001)
    figures, made = _run(survey_link(budget_bytes=8_000, budget_s=3.0), link)
    assert sum(transfer.up_bytes + transfer.down_bytes for transfer in made) <= 8_000
    assert figures.down_bps == pytest.approx(2e7, rel=0.02)


def test_a_lost_exchange_is_made_up_for_and_a_dead_link_is_an_error() -> None:
    good = _link(up_bps=1e6, down_bps=1e6, rtt_s=0.01)
    answers = iter([None])
    figures, _ = _run(
        survey_link(budget_bytes=400_000, budget_s=3.0), lambda t: next(answers, 0) or good(t)
    )
    assert figures.up_bps == pytest.approx(1e6, rel=0.02)
    with pytest.raises(LinkProbeError, match="no answer"):
        _run(survey_link(budget_bytes=400_000, budget_s=3.0), lambda _: None)


@pytest.mark.parametrize(("lost", "up_bps", "down_bps"), [("up", 32e3, 1e6), ("down", 1e6, 32e3)])
def test_a_measurement_that_failed_tells_what_the_link_is_at_best(
    lost: str, up_bps: float, down_bps: float
) -> None:
    good = _link(up_bps=1e6, down_bps=1e6, rtt_s=0.01)

    def one_way(transfer: Transfer) -> float | None:
        return None if getattr(transfer, f"{lost}_bytes") else good(transfer)

    with pytest.raises(LinkProbeError, match=f"no transfer {lost}") as failed:
        _run(survey_link(budget_bytes=400_000, budget_s=3.0), one_way)
    at_best = failed.value.at_best
    assert at_best is not None
    assert at_best.up_bps == pytest.approx(up_bps, rel=0.1)
    assert at_best.down_bps == pytest.approx(down_bps, rel=0.1)
    assert at_best.round_trip_s == pytest.approx(0.01)


@pytest.mark.parametrize("rtt_s", [0.3, 0.6])
@pytest.mark.parametrize("up_bps", [1e5, 1e6, 1e8])
@pytest.mark.parametrize("down_bps", [1e6, 1e8])
def test_whoever_is_far_away_is_measured_in_the_seconds_that_a_probe_has(
    rtt_s: float, up_bps: float, down_bps: float
) -> None:
    link = _link(up_bps=up_bps, down_bps=down_bps, rtt_s=rtt_s)
    figures, made = _run(survey_link(budget_bytes=400_000, budget_s=3.0), link)
    assert sum(link(transfer) or 0.0 for transfer in made) <= 3.0
    assert figures.up_bps == pytest.approx(up_bps, rel=0.01)
    assert figures.down_bps == pytest.approx(down_bps, rel=0.01)
    assert figures.round_trip_s == pytest.approx(rtt_s)


def _known(up_bps: float) -> LinkEstimate:
    figures = LinkFigures(up_bps, up_bps / 50, 1e7, 1e5, 0.02, 0.001, 0.0, 20)
    return LinkEstimate().after_probe(figures, acknowledge_s=0.01)


def test_every_upload_is_a_measurement_and_a_change_shows_after_two() -> None:
    link = _known(1e7)
    for _ in range(3):
        link = link.after_upload(num_bytes=100_000, acknowledged_after_s=0.81, num_messages=1)
    figures = link.figures()
    assert figures is not None
    assert figures.up_bps == pytest.approx(1e6, rel=0.01)
    assert figures.down_bps == pytest.approx(1e7)


@pytest.mark.parametrize("num_messages", [1, 2, 11])
def test_what_messages_cost_besides_their_bytes_is_not_taken_for_the_rate(
    num_messages: int,
) -> None:
    link = replace(_known(1e6), up_s_per_bit=None, message_s=0.05)
    took_s = 0.01 + 0.8 + 0.05 * (num_messages - 1)  # 800,000 bits at 1 Mbit/s
    after = link.after_upload(
        num_bytes=100_000, acknowledged_after_s=took_s, num_messages=num_messages
    )
    assert after.up_s_per_bit is not None
    assert 1 / after.up_s_per_bit.mean == pytest.approx(1e6)
    assert after.num_transfers == link.num_transfers + 1


def test_one_accident_and_small_transfers_change_nothing() -> None:
    link = _known(1e7)
    after = link.after_upload(num_bytes=100_000, acknowledged_after_s=5.0, num_messages=1)
    after = after.after_upload(num_bytes=100, acknowledged_after_s=0.2, num_messages=1)
    assert after.up_s_per_bit is not None
    assert link.up_s_per_bit is not None
    assert after.up_s_per_bit.mean == link.up_s_per_bit.mean


def test_a_longer_way_to_the_broker_lengthens_the_round_trip() -> None:
    link = _known(1e7)
    for _ in range(4):
        link = link.after_small_message(acknowledged_after_s=0.11)
    figures = link.figures()
    assert figures is not None
    assert 0.08 < figures.round_trip_s <= 0.12


def test_a_running_mean_weighs_early_values_alike_and_knows_its_deviation() -> None:
    mean = RunningMean(10.0)
    for value in (12.0, 11.0):
        mean = mean.take(value)
    assert mean.mean == pytest.approx(11.0)
    assert mean.deviation == pytest.approx(np.std([10, 12, 11]))


def test_a_transfer_that_seemed_to_take_no_time_is_published_within_bounds() -> None:
    link = LinkEstimate(up_s_per_bit=RunningMean(1e-30), down_s_per_bit=RunningMean(1e30))
    figures = link.figures()
    assert figures is not None
    profile = link_profile_of(figures)
    assert (profile.up_bps, profile.down_bps) == (MAX_BPS, LEAST_RATE)
