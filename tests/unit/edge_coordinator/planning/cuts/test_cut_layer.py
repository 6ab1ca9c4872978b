"""The choice of the cut: by expected seconds over sampled states, within memory."""

from dataclasses import replace

import numpy as np
import pytest

from edge_coordinator.planning.clusters.clustering import GibbsSchedule
from edge_coordinator.planning.cuts.cut_layer import CutChoice, choose_cut
from edge_coordinator.planning.cuts.cut_prices import priced_cuts
from edge_coordinator.planning.fleet import Fleet, Workload, device_memory_bytes
from edge_coordinator.planning.latency import cluster_latency_s, phase_seconds, round_s
from edge_coordinator.planning.plan import CutPrice, InfeasiblePlanError
from edge_coordinator.planning.wire import WireTable
from profiles.cuts import LayerCost
from profiles.device import ComputeState
from profiles.link import IndependentLinks
from runtime.wire.codecs.names import TurnCodecs
from tests.fleets import CUTS, device, random_devices, workload

WORK = workload(IndependentLinks())
INNER_CUTS = range(1, 4)
SHORT = GibbsSchedule(num_sweeps=5, num_chains=2, warm=0.5, cool=0.1, coldest=0.01)


def chosen(
    states: list[Fleet], *, num_clusters: int = 1, work: Workload = WORK, seed: int = 0
) -> CutChoice:
    sizes = np.full(num_clusters, states[0].num_devices // num_clusters)
    return choose_cut(
        states,
        work,
        sizes=sizes,
        candidates=INNER_CUTS,
        schedule=SHORT,
        generator=np.random.default_rng(seed),
    )


def test_the_chosen_cut_has_the_least_mean_latency_over_the_sampled_states() -> None:
    generator = np.random.default_rng(0)
    states = [Fleet.of(random_devices(generator, 3)) for _ in range(20)]
    members, shares = np.arange(3), np.ones(3)
    expected_s = [
        np.mean(
            [
                cluster_latency_s(
                    phase_seconds(state, WORK, cut=cut), members=members, shares=shares
                )
                for state in states
            ]
        )
        for cut in INNER_CUTS
    ]
    choice = chosen(states)
    assert [price.expected_s for price in choice.prices] == pytest.approx(expected_s)
    assert choice.cut == INNER_CUTS[int(np.argmin(expected_s))]
    assert choice.next_best is not None
    assert choice.next_best.expected_s == pytest.approx(sorted(expected_s)[1])


@pytest.mark.parametrize(
    ("fast_link", "fast_compute", "cut_name"),
    [(False, True, "wide"), (True, False, "conv")],
)
def test_slow_links_ask_for_small_activations_and_slow_devices_for_few_layers(
    *, fast_link: bool, fast_compute: bool, cut_name: str
) -> None:
    rate_bps = 1e9 if fast_link else 3e5
    state = device("a", flop_per_s=1e10 if fast_compute else 1e6, up_bps=rate_bps)
    work = replace(WORK, local_epochs=50)  # so that the device-side model does not count
    choice = chosen([Fleet.of([state])], work=work)
    assert WORK.cuts.cut_names[choice.cut] == cut_name


def test_a_cut_that_one_device_has_no_memory_for_is_infeasible_and_says_so() -> None:
    needed_bytes = device_memory_bytes(WORK)
    assert (np.diff(needed_bytes) > 0).all()
    small = replace(device("small"), free_memory_bytes=(needed_bytes[2] + needed_bytes[3]) / 2)
    choice = chosen([Fleet.of([device("large"), small])])
    by_cut = {price.cut: price for price in choice.prices}
    assert by_cut[3].expected_s is None
    assert "cut 3 needs" in by_cut[3].infeasible
    assert "small has" in by_cut[3].infeasible
    assert by_cut[2].expected_s is not None
    assert choice.cut != 3


def test_a_cut_that_an_engine_cannot_run_is_infeasible_and_what_it_needs_counts() -> None:
    best = chosen([Fleet.of([device("a")])]).cut
    refused = chosen(
        [Fleet.of([device("a")])], work=replace(WORK, refused_cuts={best: "no such operator"})
    )
    assert refused.cut != best
    assert {each.cut: each.infeasible for each in refused.prices}[best] == "no such operator"
    too_much = replace(WORK, known_bytes={best: 1e18})
    roomy = replace(device("a"), free_memory_bytes=1e12)
    assert chosen([Fleet.of([roomy])], work=too_much).cut != best


def test_no_feasible_cut_is_an_error_with_the_numbers() -> None:
    tiny = replace(device("tiny"), free_memory_bytes=1000.0)
    with pytest.raises(InfeasiblePlanError, match=r"cut 1 needs .* MB, tiny has 0\.001 MB free"):
        chosen([Fleet.of([tiny])])


def test_equal_inputs_give_equal_choices() -> None:
    states = [Fleet.of(random_devices(np.random.default_rng(1), 8))]
    assert chosen(states, num_clusters=4) == chosen(states, num_clusters=4)


def test_a_layer_that_changes_nothing_is_priced_as_the_one_before_it() -> None:
    flat = LayerCost("flat", 0.0, 0.0, 0, (784,), 3_136)
    table = replace(CUTS, layers=(*CUTS.layers[:2], flat, *CUTS.layers[2:]))
    speeds = 10 ** np.random.default_rng(2).uniform(7, 9, 8)
    devices = [
        replace(
            device(f"d{k}"),
            compute=ComputeState.of_device(
                table, forward_flop_per_s=speed, backward_flop_per_s=speed
            ),
        )
        for k, speed in enumerate(speeds)
    ]
    server = ComputeState.of_server(table, forward_flop_per_s=1e10, backward_flop_per_s=1e10)
    priced = priced_cuts(
        [Fleet.of(devices)],
        replace(WORK, cuts=table, server=server),
        sizes=np.full(4, 2),
        candidates=range(1, 5),
        schedule=SHORT,
        generator=np.random.default_rng(0),
    )
    expected_s = {price.cut: price.expected_s for price in priced.prices}
    assert expected_s[2] == expected_s[3]
    assert 2 in priced.rounds
    assert 3 not in priced.rounds


def test_training_takes_three_models_and_the_activations_and_their_gradients() -> None:
    frozen = replace(CUTS, layers=tuple(replace(each, frozen_bytes=7) for each in CUTS.layers))
    needed_bytes = device_memory_bytes(replace(WORK, cuts=frozen))
    for cut in range(CUTS.num_layers + 1):
        below = CUTS.layers[:cut]
        model = sum(layer.state_bytes for layer in below)
        sample = CUTS.input_bytes + sum(layer.activation_bytes for layer in below)
        assert needed_bytes[cut] == pytest.approx(3 * model + 7 * cut + 2 * 16 * sample)


def test_a_device_may_have_exactly_the_memory_and_has_the_least_of_all_states() -> None:
    needed = device_memory_bytes(WORK)
    rooms = [replace(device("a"), free_memory_bytes=bytes_) for bytes_ in (needed[3], needed[1])]
    assert {each.cut for each in chosen([Fleet.of(rooms[:1])]).prices if not each.infeasible} == {
        *(1, 2, 3)
    }
    choice = chosen([Fleet.of([room]) for room in rooms])
    assert [each.infeasible for each in choice.prices] == [
        "",
        *(
            f"cut {cut} needs {needed[cut] / 1e6:.3g} MB, a has {needed[1] / 1e6:.3g} MB free"
            for cut in (2, 3)
        ),
    ]


def test_cuts_are_priced_from_the_shallowest_whatever_one_of_them_lacks() -> None:
    work = replace(WORK, refused_cuts={1: "no such operator"})
    prices = priced_cuts(
        [Fleet.of([device("a")])],
        work,
        sizes=np.array([1]),
        candidates=(3, 1, 2),
        schedule=SHORT,
        generator=np.random.default_rng(0),
    ).prices
    assert [(each.cut, each.expected_s is None) for each in prices] == [
        *((1, True), (2, False), (3, False))
    ]


def test_the_next_best_is_the_cheapest_of_the_others_that_are_feasible() -> None:
    prices = [CutPrice(cut, "", s, "") for cut, s in ((1, None), (2, 9.0), (3, 1.0), (4, 5.0))]
    assert CutChoice(3, tuple(prices)).next_best == prices[3]
    assert CutChoice(3, (prices[0], prices[2])).next_best is None


def test_a_cut_is_priced_with_the_codec_and_the_parts_that_suit_it_best() -> None:
    codecs = [
        TurnCodecs(**dict.fromkeys(TurnCodecs.model_fields, name)) for name in ("fp32", "int8")
    ]
    wires = tuple(WireTable.of(CUTS, each, batch_size=16) for each in codecs)
    fleet = Fleet.of([device(f"d{k}", up_bps=1e6, down_bps=1e6) for k in range(2)])
    rounds_s = [
        round_s(
            phase_seconds(fleet, work, cut=2, micro_batches=parts),
            work,
            members=np.array([[0, 1]]),
            shares=np.ones((1, 2)),
        )
        for work in (replace(WORK, wires=wires, chosen=each) for each in codecs)
        for parts in (1, 4)
    ]
    assert float(min(rounds_s)) < float(rounds_s[2]) < float(rounds_s[0])
    choice = chosen([fleet], work=replace(WORK, wires=wires, micro_batches=(1, 4)))
    assert choice.prices[1].expected_s == pytest.approx(float(min(rounds_s)))
