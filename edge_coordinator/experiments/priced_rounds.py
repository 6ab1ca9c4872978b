"""What the rounds of a recorded run would have taken under another planner or setting.

Each round is planned for the devices as they were known when it began: their profiles, and what
the rounds before had taught of them. Nothing is measured and nothing trained, so that two plans
are compared by one latency model: what it says of the plan that was trained by is beside it, and
what the round took.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edge_coordinator.formatting import some
from edge_coordinator.job.job import Job
from edge_coordinator.monitor.record import RunRecord
from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.form import StrategyError
from edge_coordinator.planning.plan import InfeasiblePlanError, Plan
from edge_coordinator.planning.planner import price_plan
from edge_coordinator.replanning.cut_schedule import TwoTimescales
from edge_coordinator.replanning.device_states import KnownDevice, cuts_before, cuts_beyond
from edge_coordinator.replanning.planner import PlanningTask
from edge_coordinator.replanning.task import job_cut_table, planning_task
from edge_coordinator.run.plan_bases import RecordedBasis, read_bases
from edge_coordinator.training.edge_model import EdgeModel
from runtime.errors import SettingsError
from runtime.wire.published import RoundReport


@dataclass(frozen=True)
class PricedRound:
    """One round: what it took and was predicted to, and the plan that it would have had."""

    round: int
    took_s: float
    predicted_s: float | None
    """By the plan that it was trained by."""
    plan: Plan | None
    """None where there would have been none."""
    why_none: str = ""


def price_run(run: Path, job: Job, model: EdgeModel) -> list[PricedRound]:
    """Plan and price all recorded rounds of a run for this job; SettingsError if that cannot be."""
    record = RunRecord(run)
    if record.clock == "virtual":
        raise SettingsError(
            f"{run} was simulated, so nothing was measured that other plans could be priced by: "
            f"simulate it again with the changes, by cpsl simulate --config {run / 'job.toml'}"
        )
    bases = {basis.round: basis for basis in read_bases(run)}
    reports = [report for report in record.reports() if report.round in bases]
    if not reports:
        raise SettingsError(f"{run} holds no round of which it is known what it was planned by")
    cuts = job_cut_table(job, model)
    first = bases[reports[0].round]
    if len(first.server.forward_s) != cuts.num_layers + 1:
        raise SettingsError(
            f"{run} was recorded of a network of {len(first.server.forward_s) - 1} layers, "
            f"{job.settings.model.name} has {cuts.num_layers}: what was measured is of the other"
        )
    make_task = partial(
        planning_task,
        *(job, cuts),
        server=first.server,
        server_device_s=first.server_device_s,
        server_part_s=first.server_part_s,
        label_bits=first.label_bits,
    )
    pricing = _Pricing(job, make_task(num_devices=len(first.states)))
    return [pricing.priced(bases[report.round], report) for report in reports]


class _Pricing:
    """Plans one round after another, as a run does."""

    def __init__(self, job: Job, task: PlanningTask) -> None:
        self._job = job
        self._task = task
        self._timescales = TwoTimescales(
            task.grouping,
            cut=task.cut,
            every=task.settings.cut_every,
            seed=task.seed,
            own_cuts=task.own_cuts,
        )

    def priced(self, basis: RecordedBasis, report: RoundReport) -> PricedRound:
        """Price a round; a plan that cannot be is told of."""
        done = PricedRound(report.round, report.round_s, report.predicted_round_s, None)
        try:
            plan = self._plan(basis)
        except (InfeasiblePlanError, StrategyError) as error:
            return replace(done, why_none=str(error))
        if not plan.clusters:
            left_out = [f"{device} {why}" for device, why in plan.left_out.items()]
            return replace(done, why_none=f"{plan.reason}: {some(left_out)}")
        return replace(done, plan=plan)

    def _plan(self, basis: RecordedBasis) -> Plan:
        workload = self._workload(basis)
        given = self._job.given_plans
        if given is not None:
            plan = given.plan(basis.round, [state.device for state in basis.states])
            return price_plan(basis.states, workload, plan) if plan.clusters else plan
        known = [KnownDevice(state, "", {}) for state in basis.states]
        plan, _ = self._timescales.plan(known, workload, round_=basis.round, lessons=basis.lessons)
        return plan

    def _workload(self, basis: RecordedBasis) -> Workload:
        workload = basis.over(self._task.workload)
        candidates, states = self._task.candidate_cuts, basis.states
        refused = cuts_beyond(states, candidates) | dict(workload.refused_cuts)
        refused = cuts_before(states, candidates, beyond=refused) | refused
        return replace(workload, refused_cuts=refused)


def would_have_taken_s(rounds: Sequence[PricedRound]) -> float | None:
    """Scale what each round took by how the prices of the two plans compare; None if none does.

    So what predictions miss of a round (a busy machine, a retransmission) is taken to be missed
    of the other plan in the same proportion.
    """
    known = [
        each.took_s * each.plan.predicted_s / each.predicted_s
        for each in rounds
        if each.plan is not None and each.plan.predicted_s is not None and each.predicted_s
    ]
    return sum(known) if len(known) == len(rounds) else None
