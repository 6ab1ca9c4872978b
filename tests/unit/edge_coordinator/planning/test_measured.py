"""What was measured of a turn, taken apart and put together again."""

import numpy as np
import pytest

from edge_coordinator.planning.measured import DeviceTurn, measured_phases, turn_seconds
from edge_coordinator.planning.plan import ClusterPlan
from edge_coordinator.replanning.corrections import (
    LearnedCorrections,
    Recent,
    TurnMeasured,
    predicted_phases,
)
from profiles.corrections import by_phase
from profiles.phases import Phase

PREDICTED = np.array([0.1, 0.2, 0.3, 0.05, 0.3, 0.4, 0.1])


def _turn(answers_s: list[float], *, epochs: int, loss_on_device: bool = False) -> DeviceTurn:
    return DeviceTurn(
        answers_s=answers_s,
        server_s=0.05,
        forward_s=0.25,
        backward_s=0.5,
        local_epochs=epochs,
        loss_on_device=loss_on_device,
    )


def test_the_phases_of_every_answer_add_up_to_what_it_took() -> None:
    measured = measured_phases(_turn([1.0, 2.0, 1.2], epochs=2), predicted_s=PREDICTED)
    alone = turn_seconds(measured[:, np.newaxis], local_epochs=2, loss_on_device=False)
    assert alone == pytest.approx(1.0 + 2.0 + 1.2 + 2 * 0.05, rel=1e-6)
    assert measured[Phase.FORWARD] == 0.25
    assert measured[Phase.BACKWARD] == 0.5


def test_an_answer_from_a_whole_network_on_the_device_adds_up_too() -> None:
    predicted = PREDICTED * [1, 1, 0, 0, 0, 1, 1]
    turn = _turn([4.0], epochs=2, loss_on_device=True)
    measured = measured_phases(turn, predicted_s=predicted)
    alone = turn_seconds(measured[:, np.newaxis], local_epochs=2, loss_on_device=True)
    assert alone == pytest.approx(4.0)


def test_a_device_that_did_not_say_what_it_computed_is_not_measured() -> None:
    silent = DeviceTurn([1.0, 1.0], 0.1, None, None, 1, loss_on_device=False)
    assert np.isnan(measured_phases(silent, predicted_s=PREDICTED)).all()


@pytest.mark.parametrize("answers_s", [[], [1.0], [1.0, 2.0], [1.0, 2.0, 1.2, 1.0]])
def test_a_device_that_did_not_give_every_answer_is_not_measured(answers_s: list[float]) -> None:
    measured = measured_phases(_turn(answers_s, epochs=2), predicted_s=PREDICTED)
    assert np.isnan(measured).all()


def test_the_odd_first_round_is_soon_forgotten() -> None:
    recent = Recent()
    usual = []
    for value in (30.0, 1.0, 1.2, 1.1):
        recent.add(np.array(value))
        usual.append(float(recent.usual))
    assert usual[1:] == [1.0, 1.2, pytest.approx(1.15)]


def _cluster(phases_s: np.ndarray) -> ClusterPlan:
    return ClusterPlan(("a",), (1.0,), 1.0, (by_phase(phases_s),))


def test_what_is_learned_from_one_round_predicts_the_same_round() -> None:
    corrections, plan = LearnedCorrections(), _cluster(PREDICTED)
    measured = PREDICTED * 2 + 0.01
    turn = TurnMeasured(plan, {"a": measured}, turn_s=5.0)
    corrections.learn([turn], beyond_turns_s=0.5, local_epochs=1, loss_on_device=False)
    learned = corrections.of("a")
    corrected = learned.scale * PREDICTED + learned.added_s
    assert corrected == pytest.approx(measured)
    modelled_s = turn_seconds(corrected[:, np.newaxis], local_epochs=1, loss_on_device=False)
    assert modelled_s + corrections.cluster_s + corrections.round_s == pytest.approx(5.5)


def test_phases_keep_their_order_between_a_plan_and_an_array() -> None:
    assert predicted_phases(_cluster(PREDICTED))["a"].tolist() == PREDICTED.tolist()
