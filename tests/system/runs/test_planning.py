"""Whole runs that are planned: the plan follows the profiles, over the bus."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

import pytest
import torch

from edge_coordinator.run.events import Progress, RoundDone, RoundPlanned
from edge_coordinator.serve.training import new_status, serve_on
from edge_coordinator.training.edge_model import EdgeModel
from runtime.bus.memory_bus import MemoryBroker
from runtime.wire.published import PlanReport, RoundReport
from tests.builders import Reports, make_job, same_bits, serve_agent, weights_of
from tests.noise import shards
from tests.stated_profiles import Stated, StatedProfiles

SETTINGS: dict[str, object] = {
    "plan.mode": "auto",
    "plan.clusters": 2,
    "plan.learn": False,
    "plan.server_flop_per_s": 1e10,
    "training.rounds": 4,
    "training.local_epochs": 2,
}
FAST, SLOW = Stated(layer_s=1e-6, bps=1e8), Stated(layer_s=1e-3, bps=1e6)
MIXED = {"d0": FAST, "d1": SLOW, "d2": FAST, "d3": SLOW}


@dataclass
class Told:
    """An observer that keeps plans and reports."""

    plans: list[PlanReport] = field(default_factory=list)
    rounds: list[RoundReport] = field(default_factory=list)

    def tell(self, progress: Progress) -> None:
        match progress:
            case RoundPlanned(plan, _):
                self.plans.append(plan)
            case RoundDone(report):
                self.rounds.append(report)


async def _run(
    stated: Mapping[str, Stated],
    overrides: Mapping[str, object] = SETTINGS,
    *,
    later: Mapping[str, Stated] | None = None,
    engines: Sequence[str] = (),
) -> tuple[EdgeModel, Told]:
    """Train with devices that state these profiles, and later (from round 1 on) those.

    With `engines`, there are as many devices, of these engines.
    """
    own = shards([40] * max(len(stated), len(engines)), (1, 28, 28))
    job, model = make_job(own, overrides)
    broker, told = MemoryBroker(), Told()
    with ThreadPoolExecutor(1, "compute", torch.set_num_threads, (1,)) as compute:
        agents = [
            asyncio.create_task(serve_agent(broker, device, samples, compute, engine=engine))
            for (device, samples), engine in zip(
                own.items(), engines or repeat("torch"), strict=False
            )
        ]
        async with broker.connect("coordinator") as bus:
            stating = StatedProfiles(bus, stated, later or {}, later_from=1)
            status = new_status(job.assignment.run)
            await serve_on(stating, job, model, status=status, observers=[told], progress=Reports())
        for agent in agents:
            agent.cancel()
        await asyncio.gather(*agents, return_exceptions=True)
    return model, told


async def test_the_plan_follows_the_profiles_and_equal_ones_end_in_equal_bits() -> None:
    model, told = await _run(MIXED)
    clusters = {cluster.devices for cluster in told.plans[0].clusters}
    assert clusters == {("d0", "d2"), ("d1", "d3")}
    assert told.plans[0].predicted.keys() == MIXED.keys()
    assert told.plans[0].alternatives is not None
    again, told_again = await _run(MIXED)
    assert [plan.clusters for plan in told.plans] == [plan.clusters for plan in told_again.plans]
    assert same_bits(weights_of(model), weights_of(again))


async def test_a_device_that_slows_down_is_moved_and_the_plan_says_why() -> None:
    settings = SETTINGS | {"training.rounds": 6, "plan.cut_every": 100}
    _, told = await _run(MIXED, settings, later={"d1": FAST, "d2": SLOW})
    clusters = {cluster.devices for cluster in told.plans[-1].clusters}
    assert clusters == {("d0", "d1"), ("d2", "d3")}
    (changed,) = (plan.changed for plan in told.plans if plan.changed)
    assert "new clusters: d0, d1; d2, d3" in changed
    assert "the cut is chosen again at once: d1: backward pass at" in changed


async def test_a_round_reports_measured_beside_predicted_seconds() -> None:
    _, told = await _run(MIXED, SETTINGS | {"plan.learn": True})
    for report in told.rounds:
        assert report.measured.keys() == MIXED.keys()
        assert all(phases.forward_s > 0 for phases in report.measured.values())
        assert report.predicted_round_s is not None
        assert report.relative_error is not None


async def test_every_method_and_grouping_can_be_planned() -> None:
    for changes in (
        {"training.method": "sl"},
        {"training.method": "fl"},
        {"training.method": "cl"},
        {"plan.grouping": "random", "plan.cut": "pool1"},
        {"plan.grouping": "sorted"},
        {"plan.grouping": "by_id"},
        {"plan.medium": "shared", "plan.shared_bps": 1e9, "plan.shares": "equal"},
        {"plan.medium": "shared", "plan.balance_weight": 1.0},
    ):
        _, told = await _run(MIXED, SETTINGS | {"training.rounds": 2, "plan.learn": True} | changes)
        assert [report.round for report in told.rounds] == [1, 2], changes
        assert not any(report.lost for report in told.rounds)
        assert all(plan.predicted_s for plan in told.plans)


async def test_a_plan_for_a_thousand_devices_fits_in_a_message() -> None:
    _, told = await _run(MIXED, SETTINGS | {"training.rounds": 1})
    per_device = len(told.plans[0].encode()) / len(MIXED) + len(told.rounds[0].encode()) / 4
    assert 1000 * per_device < PlanReport.max_bytes


NETWORK = """
import torch
from torch import nn

class Inverse(nn.Module):
    def forward(self, x):
        return x + torch.linalg.inv(torch.eye(6) * (2 + x.square().mean()))

def build():
    return nn.Sequential(
        nn.Conv2d(1, 2, 5, stride=4), nn.ReLU(), Inverse(), nn.Flatten(), nn.Linear(72, 10)
    )
"""


async def test_devices_without_torch_measure_themselves_and_what_cannot_be_exported_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_inverse.py").write_text(NETWORK, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    own_network = {
        "model.name": "mine_inverse:build",
        "model.options": {"input_shape": [1, 28, 28]},
        "training.rounds": 2,
    }
    _, told = await _run({}, SETTINGS | own_network, engines=("onnxruntime", "torch"))
    assert [report.lost for report in told.rounds] == [{}, {}]
    assert all(plan.assumed == {} for plan in told.plans)
    assert told.plans[-1].cut in (1, 2)
    assert told.plans[-1].alternatives is not None
    cannot = {each.cut_layer: each.infeasible for each in told.plans[-1].alternatives.cuts}
    assert "operator" in cannot["3"]
