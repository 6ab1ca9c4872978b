"""The planner of a run: plans follow the profiles, and say why."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.agent.publisher import link_profile_of
from edge_coordinator.devices.registry import DeviceRecord
from edge_coordinator.job.file import load_job
from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.form import named_form
from edge_coordinator.planning.plan import ClusterPlan, Plan
from edge_coordinator.replanning.corrections import TurnMeasured, predicted_phases
from edge_coordinator.replanning.memory import RunMemory
from edge_coordinator.replanning.planner import (
    PlannedRound,
    Planner,
    PlanningTask,
    plan_changes,
)
from edge_coordinator.replanning.report import plan_report
from profiles.device import ComputeState
from profiles.link import IndependentLinks, Medium, SharedLink
from profiles.link_estimate import LinkFigures
from profiles.phases import Phase
from runtime.models.cut_table import measure_cut_table
from runtime.models.load import load_network
from runtime.wire.commands import LinkMeasured, Ready
from runtime.wire.published import DeviceStatus, PlanReport
from tests.builders import make_job
from tests.noise import shards
from tests.stated_profiles import Stated, stated_profile

CUTS = measure_cut_table(
    load_network("lenet", {}, seed=0, base_dir=Path()), name="lenet", input_shape=(1, 28, 28)
)
FAST, SLOW = Stated(layer_s=1e-5), Stated(layer_s=1e-3)


def planner_of(link: Medium | None = None, **plan: object) -> Planner:
    settings = load_job(None, {f"plan.{key}": value for key, value in plan.items()}).plan
    server = ComputeState.of_server(CUTS, forward_flop_per_s=1e10, backward_flop_per_s=1e10)
    workload = Workload(
        *(CUTS, 16, 3, 64.0, 2**18, server, link or IndependentLinks()), loss_on_device=False
    )
    cut = None if settings.cut == "auto" else 3
    grouping = Grouping("cpsl", num_clusters=2, form=named_form(settings.grouping))
    return Planner(PlanningTask(settings, grouping, cut, workload, seed=0))


def records_of(stated: Mapping[str, Stated | None]) -> dict[str, DeviceRecord]:
    return {
        device: DeviceRecord(
            DeviceStatus(state="online", session=device, since_unix_s=0.0),
            stated_profile(device, each) if each else None,
            Ready(run=1, num_samples=40, num_held_out=0, label_dtype="<i8", label_shape=()),
        )
        for device, each in stated.items()
    }


def _told(planned: PlannedRound) -> PlanReport:
    """The plan as it is published; what it predicts is possible."""
    job, _ = make_job(shards((40, 30, 30), (1, 28, 28)), {})
    report = plan_report(job, 1, planned, barred={})
    assert PlanReport.decode(report.encode()) == report
    assert report.predicted_s is not None
    assert report.alternatives is not None
    other = report.alternatives
    seconds = [other.random_clusters_s, other.random_equal_shares_s, other.sorted_clusters_s]
    assert min([*seconds, *(cut.round_s or 0.0 for cut in other.cuts)]) >= 0
    return report


def _clusters(planned: PlannedRound) -> set[tuple[str, ...]]:
    return {cluster.devices for cluster in planned.plan.clusters}


def test_devices_of_like_speed_come_together_and_move_when_one_slows_down() -> None:
    planner = planner_of(grouping="planned")
    before = {"a": FAST, "b": SLOW, "c": FAST, "d": SLOW}
    assert _clusters(planner.plan(1, records_of(before))) == {("a", "c"), ("b", "d")}
    after = {**before, "c": replace(FAST, bps=1e6), "b": FAST}
    planned = planner.plan(2, records_of(after))
    assert _clusters(planned) == {("a", "b"), ("c", "d")}
    assert "c: upload at 1 instead of 10 Mbit/s" in planned.changed


def test_a_slow_link_moves_the_cut_to_where_less_is_sent() -> None:
    shallow = planner_of(mode="auto").plan(1, records_of(dict.fromkeys("ab", Stated(bps=1e10))))
    narrow = planner_of(mode="auto").plan(1, records_of(dict.fromkeys("ab", Stated(bps=1e6))))
    sent = CUTS.smashed_bits
    assert sent[narrow.plan.cut] < sent[shallow.plan.cut]


def test_the_cut_holds_for_some_rounds_unless_a_device_drifts() -> None:
    devices: dict[str, Stated | None] = dict.fromkeys("abcd", Stated(bps=1e10))
    planner = planner_of(mode="auto", cut_every=3)
    first = planner.plan(1, records_of(devices)).plan
    jitter = {**devices, "a": Stated(bps=0.9e10)}
    assert first.alternatives is not None
    for round_ in (2, 3):
        held = planner.plan(round_, records_of(jitter)).plan
        assert held.alternatives is not None
        assert held.alternatives.cuts == first.alternatives.cuts
    renewed = planner.plan(4, records_of(jitter)).plan
    assert renewed.alternatives is not None
    assert renewed.alternatives.cuts != first.alternatives.cuts
    drifted = planner.plan(5, records_of({**devices, "a": Stated(bps=1e5)}))
    assert drifted.plan.cut != first.cut
    assert "chosen again at once: a: download at 0.1 instead of" in drifted.changed


def test_equal_profiles_give_equal_plans() -> None:
    records = records_of({"a": FAST, "b": SLOW, "c": Stated(), "d": Stated(bps=3e6)})
    one, other = planner_of(mode="auto"), planner_of(mode="auto")
    for round_ in (1, 2, 3):
        assert one.plan(round_, records) == other.plan(round_, records)


def test_what_was_not_measured_is_assumed_to_be_the_worst_and_said() -> None:
    planned = planner_of(mode="auto").plan(1, records_of({"a": FAST, "b": SLOW, "new": None}))
    assert {d for cluster in planned.plan.clusters for d in cluster.devices} == {"a", "b", "new"}
    assert planned.assumed.keys() == {"new"}
    assert "its link carries 1 Mbit/s up: no measurement" in planned.assumed["new"]
    other = planner_of(mode="auto").plan(1, records_of({"a": Stated(network="mlp"), "b": FAST}))
    assert other.assumed == {"a": "its speed at mlp is that at this one"}


def test_a_link_whose_measurement_failed_counts_as_slow_among_fast_ones() -> None:
    fast = Stated(bps=787e6)
    records = records_of({"a": fast, "b": fast, "far": None})
    at_best = link_profile_of(LinkFigures(32e3, 0.0, 5e5, 0.0, 0.6, 0.0, 0.0, 0))
    failure = LinkMeasured(probe=1, link=None, reason="no transfer up was answered")
    for proved, rate_bps in ((None, 1e6), (at_best, 32e3)):
        told = failure.model_copy(update={"at_best": proved})
        records["far"] = replace(records["far"], link_failure=told)
        planned = planner_of(mode="by_hand", cut="conv1").plan(1, records)
        said = f"carries {rate_bps / 1e6:.3g} Mbit/s up: it was not measured: no transfer up was"
        assert said in planned.assumed["far"]
        upload_s = {
            device: phases[Phase.UPLOAD]
            for cluster in planned.plan.clusters
            for device, phases in zip(cluster.devices, cluster.phases, strict=True)
        }
        assert upload_s["far"] >= 16 * CUTS.smashed_bits[planned.plan.cut] / rate_bps


def test_what_a_checkpoint_holds_that_cannot_be_is_repaired_as_it_is_read() -> None:
    devices: dict[str, Stated | None] = {"a": FAST, "b": SLOW}
    planner = planner_of(mode="auto")
    planner.plan(1, records_of(devices))
    tree = json.loads(RunMemory(planner=planner.remember()).encode())
    experience, cut, nan = tree["planner"]["experience"], tree["planner"]["cut"], float("nan")
    ones = [1.0] * len(Phase)
    experience["corrections"] = {"a": [[[nan, -1.0, *ones[2:]], [-30.0, *ones[1:]]], [[1.0]]]}
    experience |= {"cluster_s": [-30.0, nan], "round_s": [-7.0], "num_rounds": 3}
    cut["choice"]["prices"][0]["expected_s"] = -4.0
    tree["planner"]["before"]["predicted_s"] = -4.0
    tree["answer_times"] = {"a": {"first": {"seconds": -1.0, "deviation_s": 0.0}}}
    memory = RunMemory.decode(json.dumps(tree))
    assert memory.answer_times == {"a": {}}
    assert memory.planner is not None
    assert memory.planner.before is not None
    assert memory.planner.before.predicted_s is None
    resumed = planner_of(mode="auto")
    resumed.recall(memory.planner)
    planned = resumed.plan(2, records_of(devices))
    _told(planned)


def test_devices_that_count_other_numbers_of_classes_are_planned_together() -> None:
    records = records_of({"a": FAST, "b": FAST})
    for device, counts in (("a", (3, 4)), ("b", (1, 2, 3))):
        profile = records[device].profile
        assert profile is not None
        profile = profile.model_copy(update={"label_counts": counts})
        records[device] = replace(records[device], profile=profile)
    assert _clusters(planner_of(mode="auto").plan(1, records))


def test_a_device_without_the_memory_is_left_out_with_the_reason() -> None:
    tiny = replace(FAST, free_memory_bytes=1000)
    planned = planner_of(mode="auto").plan(1, records_of({"a": FAST, "b": FAST, "tiny": tiny}))
    assert "0.001 MB are free" in planned.plan.left_out["tiny"]


def test_shares_of_a_shared_medium_become_rates_that_fill_it() -> None:
    planner = planner_of(SharedLink(), mode="auto", medium="shared", shared_bps=4e6)
    planned = planner.plan(1, records_of({"a": FAST, "b": SLOW, "c": FAST, "d": FAST}))
    for cluster in planned.plan.clusters:
        rates = [planned.up_share_bps[device] for device in cluster.devices]
        assert sum(rates) == pytest.approx(4e6)
    assert not planner_of(mode="auto").plan(1, records_of({"a": FAST})).up_share_bps


def test_a_planner_that_recalls_what_another_remembered_plans_as_it_would_have() -> None:
    devices: dict[str, Stated | None] = {"a": FAST, "b": SLOW, "c": FAST, "d": SLOW}
    planner, resumed = planner_of(mode="auto"), planner_of(mode="auto")
    for round_ in (1, 2, 3):
        plan = planner.plan(round_, records_of(devices)).plan
        turns = [
            TurnMeasured(cluster, {d: 1.5 * s for d, s in predicted_phases(cluster).items()}, 1.0)
            for cluster in plan.clusters
        ]
        planner.learn(turns, beyond_turns_s=1.0)
    planner.learn_late("a", plan.clusters[0], answer_s=0.1, late_s=0.7)
    written = RunMemory(planner=planner.remember()).encode()
    memory = RunMemory.decode(written).planner
    assert memory is not None
    resumed.recall(memory)
    assert RunMemory(planner=resumed.remember()).encode() == written
    assert resumed.plan(4, records_of(devices)) == planner.plan(4, records_of(devices))


@pytest.mark.parametrize("stated", [Stated(1e5, 1.0), Stated(1e-13, 1e15)])
def test_the_least_and_the_most_that_a_profile_may_say_can_be_planned_and_told(
    stated: Stated,
) -> None:
    planned = planner_of(mode="auto").plan(1, records_of({"a": FAST, "b": stated, "c": SLOW}))
    assert set(_told(planned).predicted) == {"a", "b", "c"}


def test_the_next_plan_knows_of_a_device_that_was_late_until_it_is_measured_again() -> None:
    devices: dict[str, Stated | None] = {"a": FAST, "b": FAST}
    planner = planner_of()
    one, other = planner.plan(1, records_of(devices)).plan.clusters
    planner.learn_late("a", one, answer_s=0.1, late_s=1.0)
    planned = planner.plan(2, records_of(devices))
    slower, same = planned.plan.clusters
    assert slower.phases[0][Phase.FORWARD] == pytest.approx(10 * one.phases[0][Phase.FORWARD])
    assert same.phases == other.phases
    assert planned.assumed["a"] == "takes 10 times as long as predicted, or longer: it was late"
    turns = [TurnMeasured(each, predicted_phases(each), 1.0) for each in (slower, same)]
    planner.learn(turns, beyond_turns_s=0.0)
    assert not planner.plan(3, records_of(devices)).assumed


def test_what_another_version_remembered_is_forgotten() -> None:
    assert RunMemory.decode('{"planner": 3}') == RunMemory.decode("") == RunMemory()


def test_a_plan_tells_of_another_share_that_is_aggregated() -> None:
    alone = ClusterPlan(("a", "b"), (1.0, 1.0))
    none, half, given = (Plan(1, (replace(alone, phi=phi),)) for phi in (0.0, 0.5, None))
    assert plan_changes(none, half, ["input", "conv"]) == "phi 0.5 instead of 0"
    assert not plan_changes(given, half, ["input", "conv"])
