"""The latency of phases, epochs, clusters and rounds, against loops over the table."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from edge_coordinator.planning.fleet import Fleet
from edge_coordinator.planning.latency import (
    PhasesByShare,
    cluster_latency_s,
    device_phase_s,
    phase_seconds,
    round_s,
    transfer_bits,
    turn_s,
)
from edge_coordinator.planning.micro_batches import Flows, smallest_of
from edge_coordinator.planning.plan import StepFlow
from edge_coordinator.planning.wire import WireTable
from profiles.corrections import Corrections
from profiles.device import ComputeState, DeviceState
from profiles.link import IndependentLinks, LinkState
from profiles.phases import Phase
from runtime.wire.codecs.names import TurnCodecs
from tests.fleets import CUTS, device, random_devices, workload


def cluster_s(seconds: PhasesByShare, shares: list[float]) -> float:
    members = np.arange(len(shares))
    return float(cluster_latency_s(seconds, members=members, shares=np.array(shares)))


def waited_through_s(
    states: list[DeviceState],
    *,
    cut: int,
    epochs: int,
    shares: list[float],
    aggregated: int = 0,
    sizes: Sequence[int] = (),
) -> float:
    """Walk through a cluster's turn phase by phase, as the table in the design has it."""
    work = workload(IndependentLinks(), local_epochs=epochs)
    smashed, model = float(CUTS.smashed_bits[cut]), float(CUTS.device_model_bits[cut])
    batches, num_devices = sizes or (16,) * len(states), len(states)
    forwards = sum(batches) + (aggregated if num_devices > 1 else 0)
    backwards = sum(batches) - num_devices * aggregated + aggregated
    server_s = forwards * work.server.forward_s[cut] + backwards * work.server.backward_s[cut]
    now_s = max(model / state.link.down_bps for state in states if state.link)
    for epoch in range(epochs):
        first, second = [], []
        for state, share, batch in zip(states, shares, batches, strict=True):
            assert state.compute is not None
            assert state.link is not None
            rest = batch - aggregated
            up_bps, down_bps = state.link.up_bps * share, state.link.down_bps * share
            first.append(batch * (state.compute.forward_s[cut] + (smashed + 8.0) / up_bps))
            download_s = rest * smashed / down_bps + aggregated * smashed / state.link.down_bps
            second.append(download_s + batch * state.compute.backward_s[cut])
            if epoch == epochs - 1:
                second[-1] += model / up_bps
        now_s += max(first) + server_s + max(second)
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


@pytest.mark.parametrize("shares", [[1.0], [0.1, 0.2, 0.3, 0.4]])
def test_an_aggregated_gradient_has_the_whole_link_and_goes_back_through_the_server_once(
    shares: list[float],
) -> None:
    states = random_devices(np.random.default_rng(0), len(shares))
    work = replace(workload(IndependentLinks(), local_epochs=2), phi=0.3)
    seconds = phase_seconds(Fleet.of(states), work, cut=2)
    expected_s = waited_through_s(states, cut=2, epochs=2, shares=shares, aggregated=5)
    assert cluster_s(seconds, shares) == pytest.approx(expected_s)
    members = np.arange(len(shares))
    phase_s = device_phase_s(seconds, members=members, shares=np.array(shares))
    assert phase_s[Phase.SERVER].sum() == pytest.approx(seconds.step_s(members).sum())
    least_s = seconds.server_s.sum() + seconds.least_aggregated_s(
        np.array([len(shares)]), or_none=False
    )
    assert least_s == pytest.approx(seconds.step_s(members).sum())


def test_of_mini_batches_of_several_sizes_a_share_of_the_smallest_is_aggregated() -> None:
    states, sizes, shares = random_devices(np.random.default_rng(1), 4), (8, 24, 12, 20), [0.25] * 4
    work = replace(workload(IndependentLinks(), local_epochs=2), phi=0.3)
    flows = Flows(
        Fleet.of(states),
        work,
        2,
        np.array(sizes, dtype=float),
        smallest_of([np.arange(4)], np.array(sizes, dtype=float)),
    )
    expected_s = waited_through_s(states, cut=2, epochs=2, shares=shares, aggregated=3, sizes=sizes)
    assert cluster_s(flows.seconds(StepFlow(1, 0.3)), shares) == pytest.approx(expected_s)


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


def test_a_round_is_the_sum_of_its_turns_and_of_what_was_learned_of_rounds() -> None:
    fleet = Fleet.of(random_devices(np.random.default_rng(5), 3))
    work = replace(workload(IndependentLinks()), cluster_overhead_s=0.2, round_overhead_s=0.3)
    seconds = phase_seconds(fleet, work, cut=2)
    turns_s = [
        float(turn_s(seconds, members=np.array(own), shares=np.ones(len(own)), overhead_s=0.2))
        for own in ([0, 1], [2])
    ]
    padded = np.array([[0, 1], [2, -1]])
    found_s = round_s(seconds, work, members=padded, shares=np.ones((2, 2)))
    assert float(found_s) == pytest.approx(sum(turns_s) + 0.3)


def test_phases_of_a_cluster_have_the_share_of_the_link_but_for_the_broadcast() -> None:
    seconds = phase_seconds(
        Fleet.of(random_devices(np.random.default_rng(6), 3)), workload(IndependentLinks()), cut=2
    )
    members, shares = np.array([2, 0]), np.array([0.25, 0.5])
    found_s = device_phase_s(seconds, members=members, shares=shares)
    for phase in Phase:
        for place, (member, share) in enumerate(zip(members, shares, strict=True)):
            own = 1.0 if phase is Phase.DISTRIBUTE else share
            expected_s = seconds.fixed_s[phase, member] + seconds.link_s[phase, member] / own
            assert found_s[phase, place] == pytest.approx(expected_s)


@pytest.mark.parametrize("epochs", [1, 3])
def test_with_the_loss_on_the_device_it_trains_and_sends_the_model_once(epochs: int) -> None:
    cut = CUTS.num_layers
    work = workload(IndependentLinks(), local_epochs=epochs, loss_on_device=True)
    assert set(transfer_bits(work, cut=cut)) == {Phase.DISTRIBUTE, Phase.MODEL_UPLOAD}
    seconds = phase_seconds(Fleet.of([device("a", up_bps=1e6, down_bps=4e6)]), work, cut=cut)
    flop = sum(layer.forward_flop + layer.backward_flop for layer in CUTS.layers)
    model = float(CUTS.device_model_bits[cut])
    expected_s = model / 4e6 + epochs * 16 * flop / 1e8 + model / 1e6
    assert cluster_s(seconds, [1.0]) == pytest.approx(expected_s)


def test_in_micro_batches_each_part_has_its_messages_and_the_model_has_its_own_once() -> None:
    learned = Corrections(scale=np.full(len(Phase), 2.0), added_s=np.full(len(Phase), 0.5))
    chatty = replace(device("a"), link=LinkState(1e7, 1e7, round_trip_s=0.1, message_s=0.002))
    work = replace(workload(IndependentLinks()), message_bytes=100_000)
    seconds = phase_seconds(Fleet.of([chatty]), work, cut=1, micro_batches=4)
    assert seconds.fixed_s[Phase.DOWNLOAD, 0] == pytest.approx(0.05 + 4 * 0.002)
    assert seconds.fixed_s[Phase.MODEL_UPLOAD, 0] == pytest.approx(0.05 + 0.002)
    chatty = replace(chatty, corrections=learned)
    delay_s = phase_seconds(Fleet.of([chatty]), work, cut=1, micro_batches=4).delay_s[:, 0]
    assert delay_s[Phase.UPLOAD] == pytest.approx(2 * 0.05 + 0.5)
    assert delay_s[Phase.FORWARD] == 0


def test_no_turn_in_micro_batches_takes_less_than_a_device_computes() -> None:
    states = random_devices(np.random.default_rng(7), 3)
    work = workload(IndependentLinks(), local_epochs=2)
    seconds = phase_seconds(Fleet.of(states), work, cut=2, micro_batches=2)
    members, shares = np.arange(3), np.ones(3)
    computed_s = [
        2 * 16 * float(each.compute.forward_s[2] + each.compute.backward_s[2])
        for each in states
        if each.compute is not None
    ]
    for overhead_s in (-1e3, 5.0):
        found_s = turn_s(seconds, members=members, shares=shares, overhead_s=overhead_s)
        least_s = max(*computed_s, cluster_s(seconds, [1.0] * 3) + overhead_s)
        assert float(found_s) == pytest.approx(least_s)


def test_what_is_encoded_takes_its_bits_and_the_devices_seconds_of_encoding() -> None:
    codecs = TurnCodecs(**dict.fromkeys(TurnCodecs.model_fields, "int8"))
    wire = WireTable.of(CUTS, codecs, batch_size=16)
    plain, cut = workload(IndependentLinks()), 2
    coded = replace(plain, wires=(wire,))
    assert transfer_bits(coded, cut=cut) == wire.transfer_bits(
        cut=cut, label_bits=16 * 8.0, loss_on_device=False
    )
    assert wire.encode_flop[cut] > 0
    added_s = [
        phase_seconds(Fleet.of([device("a")]), each, cut=at).fixed_s[Phase.FORWARD, 0]
        for each, at in ((coded, cut), (plain, cut), (coded, 0), (plain, 0))
    ]
    assert added_s[0] - added_s[1] == pytest.approx(wire.encode_flop[cut] / 1e8)
    assert added_s[2] == added_s[3], "of samples as they are nobody knows a speed"
    alone = replace(workload(IndependentLinks(), loss_on_device=True), wires=(wire,))
    local = phase_seconds(Fleet.of([device("a")]), alone, cut=cut)
    assert local.fixed_s[Phase.FORWARD, 0] == pytest.approx(added_s[1])
