"""What a person sees of a run, at 80 columns."""

import re
from io import StringIO

import pytest
from rich.console import Console

from edge_coordinator.cli.run_view import RunView
from edge_coordinator.run.events import ClusterStarted, RoundDone, RoundPlanned
from runtime.wire.published import ClusterReport
from tests.sites import EPOCH, make_plan, make_round

DEVICES = tuple(f"device-{index}" for index in range(6))
REASON = "cpsl: 0.85 s predicted at cut 3 (after pool1), 0.95 s with random clusters"
PLAN = make_plan().model_copy(
    update={
        "clusters": tuple(
            ClusterReport(
                devices=devices, shares=(1, 1, 1), predicted_s=0.4, micro_batches=count, phi=phi
            )
            for devices, count, phi in ((DEVICES[:3], 4, 0.25), (DEVICES[3:], 1, 0.0))
        ),
        "predicted_s": 0.85,
        "predicted": dict.fromkeys(DEVICES, EPOCH),
        "reason": REASON,
    }
)
ROUND = make_round(
    3, test_loss=0.2, test_accuracy=0.98, predicted_round_s=0.85, up_bytes=1_503_000,
    measured=dict.fromkeys(DEVICES, EPOCH),
)  # fmt: skip


def _see(*, live: bool, by_hand: bool = False) -> str:
    said = StringIO()
    console = Console(file=said, width=80, height=24, force_terminal=live, color_system=None)
    plan, done = PLAN, ROUND
    if by_hand:
        plan = make_plan("abc", "def")
        done = ROUND.model_copy(update={"predicted_round_s": None})
    with RunView(console) as view:
        view.tell(RoundPlanned(plan, 60))
        view.tell(RoundDone(done))
        view.tell(RoundPlanned(plan.model_copy(update={"round": 4, "changed": "[b] came"}), 60))
        view.tell(ClusterStarted(4, 0, 2, DEVICES[:3]))
    return said.getvalue()


@pytest.mark.parametrize("live", [True, False], ids=["terminal", "log"])
def test_a_planned_run_shows_the_plan_its_reasons_and_predicted_beside_measured(
    *, live: bool
) -> None:
    seen = " ".join(_see(live=live).split())
    assert "plan cpsl, cut after pool1, 2 clusters, 850ms predicted" in seen
    assert "device-0, device-1, device-2 (400ms, 4 micro-batches, phi 0.25);" in seen
    assert "device-3, device-4, device-5 (400ms)" in seen
    assert REASON in seen
    assert "round 4: [b] came" in seen
    for word in ("98.00%", "3.30", "0.85", "pool1", "1.50MB"):
        assert word in seen


def test_the_live_view_fits_into_a_small_terminal_and_cuts_nothing() -> None:
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", _see(live=True)).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert not any("…" in line for line in lines)


def test_a_run_by_hand_speaks_of_no_predictions() -> None:
    seen = _see(live=False, by_hand=True)
    assert "plan cpsl, cut after pool1, 2 clusters\n" in seen
    assert "predicted" not in seen
