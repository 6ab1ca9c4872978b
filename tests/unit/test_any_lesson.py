"""Whatever devices say of themselves and however long they take: the planner plans, and tells.

Each step is drawn up to the bounds of the schemas and goes through them, as on the wire. For a
long run: `pytest tests/unit/test_any_lesson.py --hypothesis-profile=long`.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from edge_coordinator.job_file import load_job
from edge_coordinator.metering import TurnTimes
from edge_coordinator.planner import PlannedRound, Planner, PlanningTask
from edge_coordinator.planning.deadline import Answer, AnswerTimes, Question, predicted_answers
from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.plan import ClusterPlan
from edge_coordinator.planning.planner import Grouping
from edge_coordinator.registry import DeviceRecord
from edge_coordinator.reports import measured_turns, plan_report, round_report
from edge_coordinator.round_training import Trained
from edge_coordinator.run_memory import RunMemory
from profiles.device import ComputeState
from profiles.link import IndependentLinks, SharedLink
from runtime.message_types import LEAST_RATE, MAX_BPS, MAX_FLOP_PER_S, MAX_SECONDS
from runtime.messages import LinkMeasured, Ready
from runtime.models.cut_table import measure_cut_table
from runtime.models.load import load_network
from runtime.published import (
    ComputeProfile,
    DeviceMetrics,
    DeviceProfile,
    DeviceStatus,
    LayerTiming,
    LinkProfile,
    PhaseSeconds,
    PlanReport,
    RoundReport,
)
from tests.builders import make_job, shards

SHAPE = (1, 4, 4)
NETWORK = {"input_shape": list(SHAPE), "hidden": [8]}
CUTS = measure_cut_table(
    load_network("mlp", NETWORK, seed=0, base_dir=Path()), name="mlp", input_shape=SHAPE
)
JOB, _ = make_job(
    shards((40, 40, 40), SHAPE), {"model.name": "mlp", "model.options": NETWORK, "plan.cut": 1}
)
DEVICES = ("a", "b", "c")


def _numbers(least: float, most: float) -> SearchStrategy[float]:
    """Numbers within bounds, often at them or far apart."""
    special = {least, most, *(x for x in (1e-300, 1e-12, 1e-3, 1.0) if least <= x <= most)}
    return st.sampled_from(sorted(special)) | st.floats(least, most)


SECONDS, RATES = _numbers(0.0, MAX_SECONDS), _numbers(LEAST_RATE, MAX_BPS)
SPEEDS = _numbers(LEAST_RATE, MAX_FLOP_PER_S)
COUNTS = st.sampled_from([0, 1, 40, 10**9, 2**63 - 1])
LABELS = st.lists(COUNTS, max_size=4).map(tuple)


@st.composite
def _compute(draw: DrawFn) -> ComputeProfile:
    is_own = draw(st.booleans())
    layers = [
        LayerTiming(name=layer.name, forward_s=draw(SECONDS), backward_s=draw(SECONDS))
        for layer in CUTS.layers
    ]
    return ComputeProfile(
        network="mlp" if is_own else "",
        batch_size=1,
        layers=tuple(layers) if is_own else (),
        forward_flop_per_s=draw(SPEEDS),
        backward_flop_per_s=draw(SPEEDS),
        relative_deviation=draw(_numbers(0.0, 1e6)),
        measured_at_unix_s=0.0,
    )


LINKS = st.builds(
    LinkProfile,
    up_bps=RATES,
    up_deviation_bps=_numbers(0.0, MAX_BPS),
    down_bps=RATES,
    down_deviation_bps=_numbers(0.0, MAX_BPS),
    round_trip_s=SECONDS,
    round_trip_deviation_s=SECONDS,
    message_s=SECONDS,
    num_transfers=COUNTS,
    measured_at_unix_s=st.just(0.0),
)


@st.composite
def _record(draw: DrawFn, device: str) -> DeviceRecord:
    profile = DeviceProfile(
        device=device,
        engine="torch",
        machine="any",
        num_cores=1,
        memory_bytes=draw(COUNTS),
        free_memory_bytes=draw(st.sampled_from([0, 10**4, 10**9, 2**63 - 1])),
        num_samples=40,
        sample_shape=SHAPE,
        label_counts=draw(st.none() | LABELS),
        compute=draw(st.none() | _compute()),
        link=draw(st.none() | LINKS),
        measured_at_unix_s=0.0,
    )
    failure = st.builds(LinkMeasured, probe=st.just(1), link=st.none(), at_best=st.none() | LINKS)
    return DeviceRecord(
        DeviceStatus(state="online", session=device, since_unix_s=0.0),
        draw(st.sampled_from([None, DeviceProfile.decode(profile.encode())])),
        Ready(run=7, num_samples=1 + draw(COUNTS) // 2, num_held_out=0, label_dtype="<i8", label_shape=()),
        link_failure=draw(st.none() | failure),
    )


@st.composite
def _metrics(draw: DrawFn, round_: int) -> DeviceMetrics:
    names = PhaseSeconds.model_fields
    told = DeviceMetrics(
        run=7,
        round=round_,
        cluster=0,
        forward_s=draw(SECONDS),
        backward_s=draw(SECONDS),
        upload_s=0.0,
        waiting_s=0.0,
        up_bytes=0,
        down_bytes=0,
        phases=PhaseSeconds(**{name: draw(SECONDS) for name in names}),
    )
    return DeviceMetrics.decode(told.encode())


@st.composite
def _times(draw: DrawFn, cluster: ClusterPlan, num_answers: int) -> TurnTimes:
    counts = st.sampled_from([num_answers, num_answers, max(num_answers - 1, 0)])
    answers_s = {device: [draw(SECONDS) for _ in range(draw(counts))] for device in cluster.devices}
    return TurnTimes(cluster.devices, answers_s, [draw(SECONDS)], draw(SECONDS))


@st.composite
def _planners(draw: DrawFn) -> tuple[Planner, PlanningTask]:
    method = draw(st.sampled_from(["cpsl", "cpsl", "sl", "fl"]))
    server_flop_per_s = draw(SPEEDS)
    plan = load_job(None, {"plan.mode": "auto", "plan.cut_every": 2}).plan
    workload = Workload(
        cuts=CUTS,
        batch_size=draw(st.sampled_from([1, 16, 10**4])),
        local_epochs=JOB.local_epochs,
        label_bits=64.0,
        message_bytes=2**18,
        server=ComputeState.of_server(
            CUTS, forward_flop_per_s=server_flop_per_s, backward_flop_per_s=server_flop_per_s
        ),
        medium=draw(st.sampled_from([IndependentLinks(), SharedLink()])),
        loss_on_device=method == "fl",
        server_device_s=draw(SECONDS),
    )
    grouping = Grouping(method, num_clusters=2, balance_weight=draw(st.sampled_from([0.0, 2.0])))
    cut = draw(st.sampled_from([None, 1])) if method != "fl" else None
    task = PlanningTask(plan, grouping, cut, workload, seed=draw(st.integers(0, 3)))
    return Planner(task), task


def _check(planned: PlannedRound) -> None:
    """The plan can be published, and nothing in it is below zero or beyond all bounds."""
    report = plan_report(JOB, 1, planned, barred={})
    assert PlanReport.decode(report.encode()) == report
    plan, other = planned.plan, report.alternatives
    if other is not None:
        seconds = [other.random_clusters_s, other.random_equal_shares_s, other.sorted_clusters_s]
        assert min([*seconds, *(cut.round_s or 0.0 for cut in other.cuts)]) >= 0
    for cluster in plan.clusters:
        assert all(0 < share <= 1 + 1e-9 for share in cluster.shares)
        assert cluster.predicted_s is not None
        for phases in cluster.phases:
            answers = predicted_answers(phases, local_epochs=JOB.local_epochs)
            assert min(*vars(phases).values(), *answers.values(), cluster.predicted_s) >= 0
            _check_deadlines(answers)
    for rate_bps in planned.up_share_bps.values():
        assert 0 < rate_bps < math.inf


def _check_deadlines(answers: Mapping[Answer, float]) -> None:
    times = AnswerTimes(patience_s=60.0, least_margin_s=15.0)
    for answer, seconds in answers.items():
        question = Question(answer, {"a": seconds})
        times.learn(question, seconds={}, waited_s={"a": 1e6})
        assert 0 <= times.allow(question, ["a"])["a"].deadline_s < math.inf


def _learn(draw: DrawFn, planner: Planner, task: PlanningTask, planned: PlannedRound) -> None:
    """Let a round have taken any time, some devices having been late in it."""
    plan, round_ = planned.plan, 1
    for cluster in plan.clusters:
        for device, phases in zip(cluster.devices, cluster.phases, strict=True):
            if draw(st.integers(0, 3)) == 0:
                answers = predicted_answers(phases, local_epochs=JOB.local_epochs)
                answer_s = answers[draw(st.sampled_from(sorted(answers)))]
                planner.learn_late(device, cluster, answer_s=answer_s, late_s=draw(SECONDS))
    num_answers = 1 if task.workload.loss_on_device else JOB.local_epochs + 1
    times = [draw(_times(cluster, num_answers)) for cluster in plan.clusters]
    metrics = {
        device: draw(_metrics(round_))
        for cluster in plan.clusters
        for device in cluster.devices
        if draw(st.integers(0, 3))
    }
    turns = measured_turns(plan, times, metrics, job=JOB)
    planner.learn(turns, beyond_turns_s=draw(st.none() | SECONDS))
    trained, round_s = Trained(losses=[1.0]), max(draw(SECONDS), 1e-9)
    report = round_report(JOB, round_, plan, trained, turns, round_s=round_s)
    assert RoundReport.decode(report.encode()) == report


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_no_sequence_of_messages_makes_the_planner_raise_or_predict_below_zero(
    data: st.DataObject,
) -> None:
    planner, task = data.draw(_planners())
    records: dict[str, DeviceRecord] = {}
    for round_ in range(1, data.draw(st.integers(1, 5)) + 1):
        for device in DEVICES:
            if device not in records or data.draw(st.booleans()):
                records[device] = data.draw(_record(device))
        here = data.draw(st.sets(st.sampled_from(DEVICES), min_size=1))
        planned = planner.plan(round_, {device: records[device] for device in sorted(here)})
        _check(planned)
        if planned.plan.clusters:
            _learn(data.draw, planner, task, planned)
        if data.draw(st.booleans()):
            written = RunMemory(planner=planner.remember()).encode()
            memory = RunMemory.decode(written)
            assert memory.planner is not None
            assert memory.encode() == written
            planner = Planner(replace(task))
            planner.recall(memory.planner)
