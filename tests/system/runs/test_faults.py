"""What goes wrong in planning, reporting or publishing does not end a run."""

import logging
from collections.abc import Mapping
from pathlib import Path

import pytest

from edge_coordinator.planning.plan import ClusterPlan, Plan
from edge_coordinator.planning.unplanned import as_before
from edge_coordinator.replanning.memory import (
    CorrectionsMemory,
    CutMemory,
    PastState,
    PlannerMemory,
    RunMemory,
)
from edge_coordinator.run.checkpoint import Reached
from edge_coordinator.run.events import Progress, RoundDone, RoundPlanned
from edge_coordinator.run.faults import Faults, traces_in
from profiles.link import LinkState
from runtime.bus.memory_bus import MemoryBroker
from runtime.errors import StorageError
from runtime.wire.published import PlanReport, RoundReport
from tests.builders import run_job
from tests.noise import shards

OWN = shards((40, 30, 30), (1, 28, 28))
AUTO: Mapping[str, object] = {
    "plan.mode": "auto",
    "plan.profile_patience_s": 0.0,
    "plan.server_flop_per_s": 1e10,
    "training.rounds": 3,
}


class Told:
    """Keeps what a run tells, and has trouble with plans if asked to."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.plans: list[PlanReport] = []
        self.rounds: list[RoundReport] = []
        self._breaks = breaks

    def tell(self, progress: Progress) -> None:
        match progress:
            case RoundPlanned(plan, _):
                self.plans.append(plan)
                if self._breaks:
                    raise ZeroDivisionError("no plan can be shown")
            case RoundDone(report):
                self.rounds.append(report)


def _ragged_memory(before: Plan | None) -> str:
    """What no planner can go on from: states of two devices with different numbers of cuts."""
    states = {
        device: PastState(
            num_samples=30,
            forward_s=[0.0] * (10 + number),
            backward_s=[0.0] * 10,
            link=LinkState(1e6, 1e6, 0.0, 0.0),
            label_counts=None,
        )
        for number, device in enumerate(OWN)
    }
    cut = CutMemory(choice=None, chosen_in=0, lessons=0, figures={}, history=[states] * 3)
    experience = CorrectionsMemory(
        corrections={}, cluster_s=[], round_s=[], num_rounds=0, slower={}
    )
    planner = PlannerMemory(experience=experience, cut=cut, figures={}, before=before)
    return RunMemory(planner=planner).encode()


@pytest.mark.faults
async def test_a_run_whose_planner_raises_goes_on_as_before_or_by_hand(
    caplog: pytest.LogCaptureFixture,
) -> None:
    groups = (("d0", "d2"), ("d1",))
    last = Plan(2, tuple(ClusterPlan(group, (1.0,) * len(group)) for group in groups))
    for before, reason, clusters, layer in (
        (last, "as in the round before", groups, "relu1"),
        (None, "neighbours by id", (("d0", "d1"), ("d2",)), "conv1"),
    ):
        caplog.clear()
        told = Told()
        reached = Reached(0, 0.0, _ragged_memory(before))
        await run_job(OWN, AUTO, broker=MemoryBroker(), observer=told, reached=reached)
        assert [report.faults for report in told.rounds] == [{"planning": 1}] * 3
        assert [tuple(c.devices for c in plan.clusters) for plan in told.plans] == [clusters] * 3
        assert {plan.cut_layer for plan in told.plans} == {layer}
        assert all(plan.reason == f"{reason}: planning went wrong" for plan in told.plans)
        (warning,) = (each for each in caplog.records if each.levelno == logging.WARNING)
        assert "planning went wrong, so rounds go on without a new plan" in warning.getMessage()
        assert "ValueError" in warning.getMessage()


@pytest.mark.faults
async def test_a_run_that_cannot_be_told_of_is_trained_all_the_same() -> None:
    told = Told(breaks=True)
    _, reports = await run_job(OWN, {"training.rounds": 3}, broker=MemoryBroker(), observer=told)
    assert [report.faults for report in reports] == [{"telling of the run": 1}] * 3


@pytest.mark.faults
def test_the_trace_of_the_first_fault_of_a_kind_is_written_down(tmp_path: Path) -> None:
    faults, path = Faults(), tmp_path / "faults.log"
    with traces_in(path):
        assert not path.exists()
        for _ in range(3):
            with faults.gone_on_from("planning", instead="nothing is planned"):
                raise ValueError("shapes")
    text = path.read_text(encoding="utf-8")
    assert text.count("Traceback") == text.count('raise ValueError("shapes")') == 1
    assert faults.new_ones() == {"planning": 3}
    assert faults.new_ones() == {}


def test_what_a_person_can_mend_is_no_fault() -> None:
    faults = Faults()
    for error in (StorageError("disk full"), ExceptionGroup("", [StorageError("disk full")])):
        with pytest.raises(type(error)), faults.gone_on_from("planning", instead="nothing"):
            raise error
    assert not faults.counts


def test_a_plan_as_before_is_of_those_who_are_there_and_of_nobody_who_is_new() -> None:
    last = Plan(
        2, (ClusterPlan(("a", "b"), (0.5, 0.5)), ClusterPlan(("c",), (1.0,))), {"d": "no memory"}
    )
    plan = as_before(last, ["b", "d"], reason="")
    assert plan == Plan(2, (ClusterPlan(("b",), (1.0,)),), {"d": "no memory"}, "")
    assert as_before(last, ["b", "new"], reason="") is None
    assert as_before(last, ["d"], reason="") is None
