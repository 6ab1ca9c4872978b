"""Whatever devices say of themselves and however long they take: the planner plans, and tells.

Each message is drawn up to the bounds of its schema and goes through it, as on the wire. Drawing
every number by itself would take Hypothesis longer than the planner, so it draws the generator.
For a long run: `pytest -k any_lesson tests/unit --hypothesis-profile=long --timeout=0`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_coordinator.devices.answer_times import AnswerTimes
from edge_coordinator.devices.deadlines import Answer, Question, predicted_answers
from edge_coordinator.devices.registry import DeviceRecord
from edge_coordinator.job.file import load_job
from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.form import Method
from edge_coordinator.planning.plan import ClusterPlan
from edge_coordinator.replanning.memory import RunMemory
from edge_coordinator.replanning.planner import PlannedRound, Planner, PlanningTask
from edge_coordinator.replanning.report import plan_report
from edge_coordinator.rounds.report import measured_turns, round_report
from edge_coordinator.rounds.trained import Trained, TurnTimes
from profiles.device import ComputeState
from profiles.link import IndependentLinks, Medium, SharedLink
from runtime.models.cut_table import measure_cut_table
from runtime.models.load import load_network
from runtime.wire.commands import LinkMeasured, Ready
from runtime.wire.fields import LEAST_RATE, MAX_BPS, MAX_FLOP_PER_S, MAX_SECONDS
from runtime.wire.measures import ComputeProfile, LayerTiming, LinkProfile, PhaseSeconds
from runtime.wire.published import (
    DeviceMetrics,
    DeviceProfile,
    DeviceStatus,
    PlanReport,
    RoundReport,
)
from tests.builders import make_job
from tests.noise import shards

SHAPE = (1, 4, 4)
NETWORK = {"input_shape": list(SHAPE), "hidden": [8]}
CUTS = measure_cut_table(
    load_network("mlp", NETWORK, seed=0, base_dir=Path()), name="mlp", input_shape=SHAPE
)
JOB, _ = make_job(
    shards((40, 40, 40), SHAPE), {"model.name": "mlp", "model.options": NETWORK, "plan.cut": 1}
)
METHODS = {method: load_job(None, {"training.method": method}) for method in ("cpsl", "sl", "fl")}
MEDIA: tuple[Medium, ...] = (IndependentLinks(), SharedLink())
DEVICES = ("a", "b", "c")
T = TypeVar("T")


SECONDS, RATES, SPEEDS = (0.0, MAX_SECONDS), (LEAST_RATE, MAX_BPS), (LEAST_RATE, MAX_FLOP_PER_S)
COUNTS = (0, 1, 40, 10**9, 2**63 - 1)
SPECIAL = (0.0, 5e-324, 1e-300, 1e-12, 1e-3, 1.0, 1e300)


class Drawn:
    """Values of every kind that a message may hold, the extreme ones often."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def one_of(self, values: Sequence[T]) -> T:
        return self._random.choice(values)

    def happens(self, probability: float) -> bool:
        return self._random.random() < probability

    def number(self, bounds: tuple[float, float]) -> float:
        """A number within bounds: at them, special, of any size, or anywhere between."""
        least, most = bounds
        by_size = 10 ** self._random.uniform(-12, math.log10(most))
        anywhere = self._random.uniform(least, most)
        drawn = self.one_of((least, most, self.one_of(SPECIAL), by_size, by_size, anywhere))
        return min(max(drawn, least), most)

    def record(self, device: str) -> DeviceRecord:
        """What is known of a device; it may have published next to nothing."""
        profile = DeviceProfile(
            device=device,
            engine="torch",
            machine="any",
            num_cores=1,
            memory_bytes=self.one_of(COUNTS),
            free_memory_bytes=self.one_of((0, 10**4, 10**9, 10**9, 2**63 - 1)),
            num_samples=40,
            sample_shape=SHAPE,
            label_counts=tuple(self.one_of(COUNTS) for _ in range(self.one_of((0, 2, 2, 3)))),
            compute=self._compute() if self.happens(0.8) else None,
            link=self._link() if self.happens(0.8) else None,
            measured_at_unix_s=0.0,
        )
        at_best = self._link() if self.happens(0.5) else None
        failure = LinkMeasured(probe=1, link=None, at_best=at_best)
        return DeviceRecord(
            DeviceStatus(state="online", session=device, since_unix_s=0.0),
            DeviceProfile.decode(profile.encode()) if self.happens(0.9) else None,
            Ready(
                run=7,
                num_samples=max(self.one_of(COUNTS), 1),
                num_held_out=0,
                label_dtype="<i8",
                label_shape=(),
            ),
            link_failure=failure if self.happens(0.5) else None,
        )

    def metrics(self) -> DeviceMetrics:
        """What a device says that its turn cost it."""
        told = DeviceMetrics(
            run=7,
            round=1,
            cluster=0,
            forward_s=self.number(SECONDS),
            backward_s=self.number(SECONDS),
            upload_s=0.0,
            waiting_s=0.0,
            up_bytes=0,
            down_bytes=0,
            phases=PhaseSeconds(
                **{name: self.number(SECONDS) for name in PhaseSeconds.model_fields}
            ),
        )
        return DeviceMetrics.decode(told.encode())

    def times(self, cluster: ClusterPlan, num_answers: int) -> TurnTimes:
        """What the coordinator measured of a turn."""
        answers_s = {
            device: [self.number(SECONDS) for _ in range(num_answers - self.happens(0.1))]
            for device in cluster.devices
        }
        seconds = [self.number(SECONDS)]
        return TurnTimes(cluster.devices, answers_s, seconds, self.number(SECONDS))

    def task(self) -> PlanningTask:
        """What a job asks of its planner."""
        method: Method = self.one_of(("cpsl", "cpsl", "sl", "fl"))
        speed = self.number(SPEEDS)
        workload = Workload(
            cuts=CUTS,
            batch_size=self.one_of((1, 16, 10**4)),
            local_epochs=JOB.local_epochs,
            label_bits=64.0,
            message_bytes=2**18,
            server=ComputeState.of_server(
                CUTS, forward_flop_per_s=speed, backward_flop_per_s=speed
            ),
            medium=self.one_of(MEDIA),
            loss_on_device=method == "fl",
            server_device_s=self.number(SECONDS),
            server_part_s=self.number(SECONDS),
        )
        weight = self.one_of((0.0, 2.0))
        grouping = Grouping(method, num_clusters=2, balance_weight=weight)
        cut = None if method == "fl" else self.one_of((None, 1))
        plan = load_job(None, {"plan.mode": "auto", "plan.cut_every": 2}).plan
        return PlanningTask(plan, grouping, cut, workload, seed=0)

    def _compute(self) -> ComputeProfile:
        layers = [
            LayerTiming(
                name=layer.name, forward_s=self.number(SECONDS), backward_s=self.number(SECONDS)
            )
            for layer in CUTS.layers
        ]
        is_own = self.happens(0.7)
        return ComputeProfile(
            network="mlp" if is_own else "",
            batch_size=1,
            layers=tuple(layers) if is_own else (),
            forward_flop_per_s=self.number(SPEEDS),
            backward_flop_per_s=self.number(SPEEDS),
            relative_deviation=self.number((0.0, 1e6)),
            measured_at_unix_s=0.0,
        )

    def _link(self) -> LinkProfile:
        return LinkProfile(
            up_bps=self.number(RATES),
            up_deviation_bps=self.number((0.0, MAX_BPS)),
            down_bps=self.number(RATES),
            down_deviation_bps=self.number((0.0, MAX_BPS)),
            round_trip_s=self.number(SECONDS),
            round_trip_deviation_s=self.number(SECONDS),
            message_s=self.number(SECONDS),
            num_transfers=self.one_of(COUNTS),
            measured_at_unix_s=0.0,
        )


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
            assert min(*phases.values(), *answers.values(), cluster.predicted_s) >= 0
            _check_deadlines(answers)
    for rate_bps in planned.up_share_bps.values():
        assert 0 < rate_bps < math.inf


def _check_deadlines(answers: Mapping[Answer, float]) -> None:
    times = AnswerTimes(patience_s=60.0, least_margin_s=15.0)
    for answer, seconds in answers.items():
        question = Question(answer, {"a": seconds})
        times.learn(question, seconds={}, waited_s={"a": 1e6})
        assert 0 <= times.allow(question, ["a"])["a"].deadline_s < math.inf


def _learn(drawn: Drawn, planner: Planner, task: PlanningTask, planned: PlannedRound) -> None:
    """Let a round have taken any time, some devices having been late in it."""
    plan = planned.plan
    for cluster in plan.clusters:
        for device, phases in zip(cluster.devices, cluster.phases, strict=True):
            if drawn.happens(0.2):
                answers = predicted_answers(phases, local_epochs=JOB.local_epochs)
                answer_s, late_s = drawn.one_of([*answers.values()]), drawn.number(SECONDS)
                planner.learn_late(device, cluster, answer_s=answer_s, late_s=late_s)
    num_answers = 1 if task.workload.loss_on_device else JOB.local_epochs + 1
    times = [drawn.times(cluster, num_answers) for cluster in plan.clusters]
    metrics = {device: drawn.metrics() for device in DEVICES if drawn.happens(0.8)}
    job = replace(JOB, settings=METHODS[task.grouping.method])
    turns = measured_turns(plan, times, metrics, job=job)
    planner.learn(turns, beyond_turns_s=drawn.number(SECONDS) if drawn.happens(0.8) else None)
    round_s = max(drawn.number(SECONDS), 1e-9)
    report = round_report(job, 1, plan, Trained(losses=[1.0]), turns, round_s=round_s)
    assert RoundReport.decode(report.encode()) == report


@given(random=st.randoms(use_true_random=True))
@settings(deadline=None, max_examples=settings().max_examples // 2)
def test_no_sequence_of_messages_makes_the_planner_raise_or_predict_below_zero(
    random: Random,
) -> None:
    drawn = Drawn(random)
    task, records = drawn.task(), dict[str, DeviceRecord]()
    planner = Planner(task)
    for round_ in range(1, 6):
        for device in DEVICES:
            if device not in records or drawn.happens(0.3):
                records[device] = drawn.record(device)
        here = [device for device in DEVICES if drawn.happens(0.9)] or ["a"]
        planned = planner.plan(round_, {device: records[device] for device in here})
        _check(planned)
        if planned.plan.clusters:
            _learn(drawn, planner, task, planned)
        if drawn.happens(0.3):
            written = RunMemory(planner=planner.remember()).encode()
            memory = RunMemory.decode(written)
            assert memory.planner is not None
            assert memory.encode() == written
            planner = Planner(task)
            planner.recall(memory.planner)
