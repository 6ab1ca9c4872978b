"""The latency of phases, epochs, clusters and rounds, against loops over the table."""

from dataclasses import replace

import numpy as np
import pytest

from edge_coordinator.planning.fleet import Fleet
from edge_coordinator.planning.latency import (
    PhasesByShare,
    cluster_latency_s,
    phase_seconds,
    turn_s,
)
from profiles.corrections import Corrections
from profiles.device import ComputeState, DeviceState
from profiles.link import IndependentLinks, LinkState
from profiles.phases import Phase
from tests.fleets import CUTS, device, random_devices, workload


def cluster_s(seconds: PhasesByShare, shares: list[float]) -> float:
    members = np.arange(len(shares))
    return float(cluster_latency_s(seconds, members=members, shares=np.array(shares)))


def waited_through_s(
    states: list[DeviceState], *, cut: int, epochs: int, shares: list[float]
) -> float:
    """Walk through a cluster's turn phase by phase, as the table in the design has it."""
    work = workload(IndependentLinks(), local_epochs=epochs)
    batch, smashed, model = 16, float(CUTS.smashed_bits[cut]), float(CUTS.device_model_bits[cut])
    server_s = work.server.forward_s[cut] + work.server.backward_s[cut]
    now_s = max(model / state.link.down_bps for state in states if state.link)
    for epoch in range(epochs):
        first, second = [], []
        for state, share in zip(states, shares, strict=True):
            assert state.compute is not None
            assert state.link is not None
            up_bps, down_bps = state.link.up_bps * share, state.link.down_bps * share
            first.append(batch * (state.compute.forward_s[cut] + (smashed + 8.0) / up_bps))
            second.append(batch * (smashed / down_bps + state.compute.backward_s[cut]))
            if epoch == epochs - 1:
                second[-1] += model / up_bps
        now_s += max(first) + len(states) * batch * server_s + max(second)
    return now_s


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("cut", [1, 2, 3, CUTS.num_layers])
def test_a_cluster_waits_twice_per_epoch_and_uploads_the_model_in_the_last(
    cut: int, epochs: int
) -> None:
    states = random_devices(np.random.default_rng(cut), 4)
    shares = [0.1, 0.2, 0.3, 0.4]
    work = workload(IndependentLinks(), local_epochs=epochs)
    seconds = phase_seconds(Fleet.of(states), work, cut=cut)
    expected_s = waited_through_s(states, cut=cut, epochs=epochs, shares=shares)
    assert cluster_s(seconds, shares) == pytest.approx(expected_s)


def test_the_model_is_broadcast_at_the_slowest_rate_of_the_whole_link() -> None:
    fleet = Fleet.of([device("a", down_bps=1e6), device("b", down_bps=4e6)])
    work = workload(IndependentLinks())
    no_links = phase_seconds(fleet, work, cut=1).link_s
    no_links[1:] = 0
    zeros = np.zeros_like(no_links)
    seconds = PhasesByShare(zeros, no_links, 1, loss_on_device=False, delay_s=zeros)
    assert cluster_s(seconds, [0.01, 0.99]) == pytest.approx(CUTS.device_model_bits[1] / 1e6)


def test_nobody_waits_for_others_when_the_loss_is_on_the_device() -> None:
    fast_up = device("a", flop_per_s=1e7, up_bps=1e9)
    fast_compute = device("b", flop_per_s=1e10, up_bps=1e5)
    work = workload(IndependentLinks(), local_epochs=2, loss_on_device=True)
    together = phase_seconds(Fleet.of([fast_up, fast_compute]), work, cut=CUTS.num_layers)
    alone = [
        cluster_s(phase_seconds(Fleet.of([state]), work, cut=CUTS.num_layers), [1.0])
        for state in (fast_up, fast_compute)
    ]
    assert cluster_s(together, [1.0, 1.0]) == pytest.approx(max(alone))


def test_the_server_takes_no_step_when_the_loss_is_on_the_device() -> None:
    fleet, last = Fleet.of([device("a")]), CUTS.num_layers
    for loss_on_device, server_s in ((True, 0.0), (False, 0.25)):
        work = workload(IndependentLinks(), loss_on_device=loss_on_device)
        seconds = phase_seconds(fleet, replace(work, server_device_s=0.25), cut=last)
        assert seconds.fixed_s[Phase.SERVER, 0] == server_s


def test_raw_data_goes_up_and_nothing_comes_down_when_all_layers_are_on_the_server() -> None:
    seconds = phase_seconds(Fleet.of([device("a")]), workload(IndependentLinks()), cut=0)
    happens = (seconds.fixed_s + seconds.link_s)[:, 0] > 0
    assert [phase for phase in Phase if happens[phase]] == [Phase.UPLOAD, Phase.SERVER]
    assert seconds.link_s[Phase.UPLOAD, 0] == pytest.approx(16 * (3136 * 8 + 8) / 1e7)


def test_each_transfer_costs_half_a_round_trip_and_its_messages() -> None:
    chatty = replace(device("a"), link=LinkState(1e7, 1e7, round_trip_s=0.1, message_s=0.002))
    work = replace(workload(IndependentLinks()), message_bytes=100_000)
    seconds = phase_seconds(Fleet.of([chatty]), work, cut=1)  # 16 x 12,544 bytes: 3 messages
    assert seconds.fixed_s[Phase.DOWNLOAD, 0] == pytest.approx(0.05 + 3 * 0.002)


def test_what_was_learned_applies_to_phases_that_happen() -> None:
    learned = Corrections(scale=np.full(len(Phase), 2.0), added_s=np.full(len(Phase), 0.5))
    states = [device("a"), replace(device("b"), corrections=learned)]
    seconds = phase_seconds(Fleet.of(states), workload(IndependentLinks()), cut=0)
    plain_s, learned_s = (seconds.fixed_s + seconds.link_s).T
    happens = plain_s > 0
    assert learned_s[happens] == pytest.approx(2 * plain_s[happens] + 0.5)
    assert not learned_s[~happens].any()


def test_corrections_predict_what_was_measured_be_it_more_or_less() -> None:
    modelled_s = np.array([0.0, 1.0, 2.0, 0.1, 2.0, 3.0, 0.0])
    learned = Corrections.none()
    for factor in (1.1, 7.0, 0.9, 0.01):
        real_s = np.where(modelled_s > 0, factor * modelled_s, np.nan)
        predicted_s = learned.corrected(modelled_s)
        learned = learned.learn(predicted_s=predicted_s, measured_s=real_s)
        assert learned.corrected(modelled_s)[1:-1] == pytest.approx(real_s[1:-1])


def test_no_phase_takes_less_than_nothing_at_a_rate_that_nothing_was_learned_at() -> None:
    slow_s, fast_s = np.full(len(Phase), 10.0), np.full(len(Phase), 0.01)
    carried_faster = Corrections.none().learn(predicted_s=slow_s, measured_s=0.1 * slow_s)
    assert carried_faster.corrected(fast_s) == pytest.approx(0.1 * fast_s)


def test_a_turn_ends_no_sooner_than_its_slowest_device_alone_whatever_was_learned() -> None:
    states = random_devices(np.random.default_rng(3), 4)
    seconds = phase_seconds(Fleet.of(states), workload(IndependentLinks(), local_epochs=2), cut=2)
    alone_s = [
        turn_s(seconds, members=np.array([k]), shares=np.ones(1), overhead_s=0.0) for k in range(4)
    ]
    least_s = max(alone_s) + 2 * 3 * seconds.server_s[0]  # of the other three
    members, shares = np.arange(4), np.ones(4)
    for overhead_s in (-1e3, -1e300, 5.0):
        together_s = turn_s(seconds, members=members, shares=shares, overhead_s=overhead_s)
        latency_s = cluster_s(seconds, [1.0] * 4)
        assert together_s == pytest.approx(max(least_s, latency_s + overhead_s))


def test_layer_timings_and_speeds_give_the_same_seconds_at_every_cut() -> None:
    forward_s = np.array([layer.forward_flop for layer in CUTS.layers]) / 1e8
    backward_s = np.array([layer.backward_flop for layer in CUTS.layers]) / 1e8
    speeds = {"forward_flop_per_s": 1e8, "backward_flop_per_s": 1e8}
    timings = {"layer_forward_s": forward_s, "layer_backward_s": backward_s}
    for by_speed, by_layer in (
        (ComputeState.of_device(CUTS, **speeds), ComputeState.of_device_layers(**timings)),
        (ComputeState.of_server(CUTS, **speeds), ComputeState.of_server_layers(**timings)),
    ):
        assert by_layer.forward_s == pytest.approx(by_speed.forward_s)
        assert by_layer.backward_s == pytest.approx(by_speed.backward_s)
