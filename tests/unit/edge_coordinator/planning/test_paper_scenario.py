"""The paper scenario: the published figures, by the same functions that plan real rounds."""

import numpy as np
import pytest

from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.form import Method
from edge_coordinator.planning.planner import plan_round
from runtime.scenarios.files import load_scenario

PAPER = load_scenario("paper")


PUBLISHED_S: dict[Method, float] = {"cpsl": 3.78, "sl": 13.90, "fl": 33.43}
"""Seconds of a round, as the paper has them."""


@pytest.mark.parametrize("method", PUBLISHED_S)
def test_the_published_latencies_are_met_within_1_percent(method: Method) -> None:
    made = plan_round(
        PAPER.device_states(),
        Workload.of_scenario(PAPER, loss_on_device=method == "fl"),
        grouping=Grouping(method, num_clusters=PAPER.num_clusters),
        cut=None,
        generator=np.random.default_rng(0),
    )
    assert made.predicted_s == pytest.approx(PUBLISHED_S[method], rel=0.01)


def test_the_published_amounts_of_data_and_work_are_met_within_1_percent() -> None:
    cuts = PAPER.cut_table()
    flop = cuts.device_forward_flop + cuts.device_backward_flop
    step_bytes = 2 * PAPER.batch_size * cuts.smashed_bits[PAPER.cut] / 8
    whole_bytes = 2 * cuts.device_model_bits[-1] / 8
    assert flop[-1] == pytest.approx(91.6e6, rel=0.01)
    assert flop[PAPER.cut] == pytest.approx(5.6e6, rel=0.01)
    assert whole_bytes == pytest.approx(16.49e6, rel=0.01)
    assert step_bytes == pytest.approx(0.35e6, rel=0.01)
    assert 1 - step_bytes / whole_bytes == pytest.approx(0.978, abs=0.002)
    assert 1 - flop[PAPER.cut] / flop[-1] == pytest.approx(0.939, abs=0.001)


def test_what_is_compared_with_is_what_the_paper_says() -> None:
    said = {f"{method}_round_s": seconds for method, seconds in PUBLISHED_S.items()}
    amounts = {
        "cpsl_convergence_s": 600,
        "sl_convergence_s": 1400,
        "whole_model_bytes_per_step": 16.49e6,
        "whole_model_flop_per_sample": 91.6e6,
        "cut_bytes_per_step": 0.35e6,
        "cut_bytes_saved": 0.978,
        "cut_flop_per_sample": 5.6e6,
    }
    assert PAPER.published == said | amounts


def test_the_calibrated_figures_are_marked_as_ours() -> None:
    rates = {"server_flop_per_s", "devices.flop_per_s", "devices.up_bps", "devices.down_bps"}
    assert rates <= set(PAPER.calibrated)
    assert "our calibration" in PAPER.note
