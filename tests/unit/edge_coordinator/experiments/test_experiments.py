"""The figures of a comparison, and the optimum that groupings are measured by."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_coordinator.experiments.bounds import Observed, over_seeds, ratio
from edge_coordinator.experiments.cuts import cheapest_cut, cut_costs
from edge_coordinator.experiments.exhaustive import best_round_s
from edge_coordinator.experiments.groupings import how_optimal, study_groupings
from edge_coordinator.experiments.latencies import (
    EXHAUSTIVE,
    Setting,
    grouping_latencies,
    method_latency,
    small_latencies,
    smaller,
)
from edge_coordinator.experiments.report import cuts_part, groupings_part
from edge_coordinator.experiments.results import Milestone, RoundRow, TrainedRun, converged, reached
from edge_coordinator.experiments.tables import seconds, write_runs
from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.form import Method
from edge_coordinator.planning.latency import cluster_latency_s
from edge_coordinator.planning.plan import InfeasiblePlanError
from profiles.link import IndependentLinks, SharedLink, Subcarriers
from runtime.scenarios.files import load_scenario
from tests.fleets import best_of_all_s, random_pricer

PAPER = load_scenario("paper")
WORK = Workload.of_scenario(PAPER, loss_on_device=False)
SETTING = Setting(PAPER, WORK, tuple(PAPER.names()), 6, cut=1, seed=0, chosen=tuple(range(30)))


def _run(accuracies: Sequence[float | None]) -> TrainedRun:
    rows = tuple(
        RoundRow(n, 2.0 * n, 2.0, 1.0, 1.0, a, 10, 20, 10.0, 20.0, 5.0, 3, (2.0,))
        for n, a in enumerate(accuracies, start=1)
    )
    return TrainedRun("cpsl", 0, rows, accuracies[-1])


def test_a_target_is_reached_in_the_first_evaluation_at_it_and_costs_all_rounds_until_then() -> (
    None
):
    event = reached(_run([0.5, None, 0.9, 0.7, 0.95]), 0.9)
    assert event == Milestone(3, 6.0, num_bytes=90, device_flop=15.0, is_bound=False)


def test_a_target_that_is_missed_costs_at_least_the_whole_run() -> None:
    event = reached(_run([0.5, 0.6, None]), 0.9)
    assert event == Milestone(3, 6.0, num_bytes=90, device_flop=15.0, is_bound=True)


def test_what_was_never_evaluated_has_no_events() -> None:
    assert reached(_run([None, None]), 0.9) is None
    assert converged(_run([None, None])) is None


def test_convergence_is_the_first_evaluation_from_which_the_smoothed_accuracy_stays() -> None:
    flat = [0.1] * 5 + [0.9] * 25
    # Five evaluations after the step, their mean is all of 0.9.
    assert _convergence(flat) == (10, False)
    dip = [*flat[:15], *[0.5] * 5, *[0.9] * 20]
    assert _convergence(dip) == (25, False)


def test_a_run_that_ends_below_its_best_converges_after_its_end() -> None:
    assert _convergence([*[0.9] * 20, *[0.5] * 5]) == (25, True)


def test_a_run_that_still_rises_converges_no_sooner_than_it_came_near_its_best() -> None:
    assert _convergence(np.linspace(0, 1, 40).tolist()) == (40, True)
    last_step = [*[0.1] * 5, *[0.9] * 30, *[0.907] * 5]
    assert _convergence(last_step) == (10, True)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.integers(1, 39))
def test_no_way_to_go_on_makes_a_run_converge_before_its_bound(
    accuracies: list[float], num_before: int
) -> None:
    stopped, went_on = converged(_run(accuracies[:num_before])), converged(_run(accuracies))
    assert stopped is not None
    assert went_on is not None
    assert went_on.round >= stopped.round


def _convergence(accuracies: Sequence[float]) -> tuple[int, bool]:
    event = converged(_run(accuracies))
    assert event is not None
    return event.round, event.is_bound


def test_the_rows_of_runs_agree_with_the_report_on_what_has_not_converged(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    below_its_best = _run([*[0.9] * 20, *[0.5] * 5])
    flat = _run([*np.linspace(0, 0.9, 10), *[0.9] * 30])
    write_runs(path, {"cpsl": [below_its_best, flat]}, target=0.99)
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert [row["converged_is_bound"] for row in rows] == ["True", "False"]
    settled = converged(flat)
    assert settled is not None
    assert [row["converged_round"] for row in rows] == ["25", str(settled.round)]
    assert {row["target_is_bound"] for row in rows} == {"True"}


def test_a_seed_that_did_not_get_there_counts_with_its_whole_run_and_makes_the_mean_a_bound() -> (
    None
):
    values = [_exact(318.0), _at_least(567.0), _exact(348.0)]
    text = over_seeds(values, seconds, missing="not yet")
    assert text == "≥ 411 (318, ≥ 567, 348; not yet by 1 of 3)"
    assert over_seeds([_exact(100.0), _exact(200.0)], seconds, missing="") == "150 (100 to 200)"
    assert over_seeds([_at_least(5.0)], seconds, missing="not yet") == "≥ 5.00 (not yet)"
    assert over_seeds([None], seconds, missing="none") == "none"


def test_a_ratio_is_known_from_the_side_that_its_bound_leaves() -> None:
    text = "{:.1f}".format
    assert ratio(_exact(3.0), _exact(2.0)).text(text) == "1.5"
    assert ratio(_exact(3.0), _at_least(2.0)).text(text) == "≤ 1.5"
    assert ratio(_at_least(3.0), _exact(2.0)).text(text) == "≥ 1.5"
    assert ratio(_at_least(3.0), _at_least(2.0)).text(text) == "not known"


def test_a_bound_on_the_wrong_side_decides_nothing() -> None:
    at_most, at_least = ratio(_exact(1.0), _at_least(4.0)), ratio(_at_least(1.0), _exact(4.0))
    assert (at_most.below(0.5), at_least.below(0.5)) == (True, None)
    assert (at_most.below(0.2), at_least.below(0.2)) == (None, False)
    assert ratio(_at_least(1.0), _at_least(4.0)).below(0.5) is None


def _exact(value: float) -> Observed:
    return Observed(value, is_bound=False)


def _at_least(value: float) -> Observed:
    return Observed(value, is_bound=True)


def test_the_exhaustive_optimum_is_the_best_partition_where_links_are_independent() -> None:
    generator = np.random.default_rng(1)
    for sizes in ([3, 3], [4, 3], [2, 2, 2]):
        pricer = random_pricer(generator, sum(sizes))
        ours = best_round_s(pricer, sizes=np.array(sizes))
        assert ours == pytest.approx(best_of_all_s(pricer, np.array(sizes)))


def test_the_exhaustive_optimum_tries_every_division_of_the_subcarriers() -> None:
    pricer = random_pricer(np.random.default_rng(2), 3, medium=Subcarriers(6))
    members = np.array([[0, 1, 2]])
    every_s = [
        float(cluster_latency_s(pricer.seconds, members=members, shares=shares / 6)[0])
        for a in range(1, 5)
        for b in range(1, 6 - a)
        for shares in [np.array([[a, b, 6 - a - b]])]
    ]
    assert len(every_s) == 10
    assert best_round_s(pricer, sizes=np.array([3])) == pytest.approx(min(every_s))


def test_no_grouping_beats_the_optimum_and_planning_comes_within_5_percent() -> None:
    small = smaller(SETTING, num_devices=6, num_clusters=2)
    means = {
        name: each.mean_s for name, each in small_latencies(small, spread=0.5, draws=4).items()
    }
    assert means["planned"] <= 1.05 * means[EXHAUSTIVE]
    assert all(mean_s >= means[EXHAUSTIVE] - 1e-9 for mean_s in means.values())


@pytest.mark.parametrize(
    ("num_devices", "num_clusters", "num_subcarriers", "sentence"),
    [
        (8, 4, 3, "8 devices in 2 clusters are 4 in a cluster, and there are 3 subcarriers"),
        (8, 2, 300, "4 devices can divide 300 subcarriers in 4,410,549 ways"),
        (3, 1, 30, "3 devices are too few"),
    ],
)
def test_an_optimum_that_cannot_be_had_is_left_out_and_the_report_says_why(
    num_devices: int, num_clusters: int, num_subcarriers: int, sentence: str, tmp_path: Path
) -> None:
    medium = Subcarriers(num_subcarriers)
    few = Setting(
        PAPER.model_copy(update={"num_subcarriers": num_subcarriers}),
        replace(SETTING.workload, medium=medium),
        SETTING.devices[:num_devices],
        num_clusters,
        cut=1,
        seed=0,
        chosen=tuple(range(num_devices)),
    )
    text = groupings_part(tmp_path, study_groupings(few, draws=1, on_step=lambda: None))
    assert sentence in text


def test_what_the_optimum_is_the_best_of_depends_on_the_link() -> None:
    assert "every division of the subcarriers" in how_optimal(Subcarriers(30))
    assert "nothing is divided" in how_optimal(IndependentLinks())
    assert "the planner divides the link" in how_optimal(SharedLink())


def test_planning_buys_more_as_devices_differ_more() -> None:
    gains = []
    for spread in (0.0, 0.2, 0.5):
        means = grouping_latencies(SETTING, spread=spread, draws=3)
        gains.append(means["random, equal shares"].mean_s / means["planned"].mean_s - 1)
    assert gains[0] == pytest.approx(0.0, abs=1e-9)
    assert all(after > before for before, after in pairwise(gains))


def test_in_the_last_row_of_the_cuts_no_labels_travel_and_in_the_others_they_do() -> None:
    table = PAPER.cut_table()
    few = replace(smaller(SETTING, num_devices=4, num_clusters=2), cut=1)
    costly = replace(few, workload=replace(WORK, label_bits=1e6))
    pairs = zip(cut_costs(few), cut_costs(costly), strict=True)
    slower = [(b.round_s or 0) > (a.round_s or 0) for a, b in pairs]
    assert slower == [True] * table.num_layers + [False]


def test_with_a_spread_of_10_percent_the_paper_order_and_ratios_stay() -> None:
    methods: Sequence[Method] = ("cpsl", "sl", "fl")
    seconds_of = {
        method: method_latency(SETTING, method, spread=0.1, draws=4).mean_s for method in methods
    }
    assert seconds_of["sl"] >= 3.5 * seconds_of["cpsl"]
    assert seconds_of["fl"] >= 8 * seconds_of["cpsl"]


def test_equal_seeds_draw_equal_states_and_others_do_not() -> None:
    first, again = (SETTING.states(1, spread=0.1)[0].link for _ in range(2))
    other = replace(SETTING, seed=1).states(1, spread=0.1)[0].link
    assert first == again
    assert first != other


def test_a_cut_that_does_not_fit_is_said_and_never_chosen(tmp_path: Path) -> None:
    needed_bytes = [each.device_memory_bytes for each in cut_costs(SETTING)]
    devices = tuple(
        each.model_copy(update={"memory_bytes": needed_bytes[1] + 1}) for each in PAPER.devices
    )
    scarce = replace(SETTING, scenario=PAPER.model_copy(update={"devices": devices}))
    costs = cut_costs(scarce)
    assert [each.round_s is None for each in costs] == [
        need > needed_bytes[1] for need in needed_bytes
    ]
    assert cheapest_cut(scarce).cut == 1
    text = cuts_part(tmp_path, [("By these costs", "cuts", costs)])
    assert "| does not fit |" in text
    assert "MB, device-00 has" in text
    assert (tmp_path / "cuts.png").exists()
    tiny = tuple(each.model_copy(update={"memory_bytes": 2e5}) for each in PAPER.devices)
    with pytest.raises(InfeasiblePlanError, match="no cut fits"):
        cheapest_cut(replace(SETTING, scenario=PAPER.model_copy(update={"devices": tiny})))


def test_few_devices_are_taken_from_every_class() -> None:
    scenario = load_scenario("heterogeneous")
    cuts = PAPER.cut_table()
    work = replace(SETTING.workload, cuts=cuts, medium=scenario.medium())
    names = tuple(f"d{index:02}" for index in range(30))
    every = Setting(scenario, work, names, 6, cut=1, seed=0, chosen=tuple(range(30)))
    few = smaller(every, num_devices=6, num_clusters=2)
    assert _rates(few) == {2, 8, 20}
    rest = smaller(replace(every, chosen=tuple(range(10, 30))), num_devices=6, num_clusters=2)
    assert min(rest.chosen) >= 10
    assert _rates(rest) == {8, 20}


def _rates(setting: Setting) -> set[int]:
    """Mbit/s up of the devices that take part."""
    states = setting.states(1, spread=0.0)
    return {round(state.link.up_bps / 1e6) for state in states if state.link}
