"""The paper scenario: the published figures, by the same functions that plan real rounds."""

import numpy as np
import pytest

from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.form import Method
from edge_coordinator.planning.planner import Grouping, plan_round
from runtime.scenario_files import load_scenario

PAPER = load_scenario("paper")


@pytest.mark.parametrize("method", ["cpsl", "sl", "fl"])
def test_the_published_latencies_are_met_within_1_percent(method: Method) -> None:
    made = plan_round(
        PAPER.device_states(),
        Workload.of_scenario(PAPER, loss_on_device=method == "fl"),
        grouping=Grouping(method, num_clusters=PAPER.num_clusters),
        cut=None,
        generator=np.random.default_rng(0),
    )
    assert made.predicted_s == pytest.approx(PAPER.published[f"{method}_round_s"], rel=0.01)


def test_the_published_amounts_of_data_and_work_are_met_within_1_percent() -> None:
    cuts = PAPER.cut_table()
    flop = cuts.device_forward_flop + cuts.device_backward_flop
    step_bytes = 2 * PAPER.batch_size * cuts.smashed_bits[PAPER.cut] / 8
    whole_bytes = 2 * cuts.device_model_bits[-1] / 8
    published = PAPER.published
    assert flop[-1] == pytest.approx(published["whole_model_flop_per_sample"], rel=0.01)
    assert flop[PAPER.cut] == pytest.approx(published["cut_flop_per_sample"], rel=0.01)
    assert whole_bytes == pytest.approx(published["whole_model_bytes_per_step"], rel=0.01)
    assert step_bytes == pytest.approx(published["cut_bytes_per_step"], rel=0.01)


def test_the_calibrated_figures_are_marked_as_ours() -> None:
    assert {"server_flop_per_s", "devices.flop_per_s", "devices.up_bps"} <= set(PAPER.calibrated)
    assert "our calibration" in PAPER.note
