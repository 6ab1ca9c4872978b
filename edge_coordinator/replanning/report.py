"""A plan with its reasons, as the message that people and programs read."""

from collections.abc import Mapping

from edge_coordinator.job.job import Job
from edge_coordinator.planning.plan import Alternatives, ClusterPlan, CutPrice
from edge_coordinator.replanning.corrections import predicted_phases
from edge_coordinator.replanning.planner import PlannedRound
from profiles.phases import Phase
from profiles.units import Floats
from runtime.wire.measures import PhaseSeconds
from runtime.wire.published import ClusterReport, OtherCut, PlanAlternatives, PlanReport

SIGNIFICANT_DIGITS = 4
"""What is read by people is not written to sixteen digits."""


def plan_report(
    job: Job, round_: int, planned: PlannedRound, *, barred: Mapping[str, str]
) -> PlanReport:
    """Write down a plan with its reasons; `barred` were not even considered."""
    plan = planned.plan
    return PlanReport(
        run=job.assignment.run,
        round=round_,
        method=job.settings.training.method,
        cut=plan.cut,
        cut_layer=job.cut_name(plan.cut),
        clusters=tuple(_cluster_report(job, cluster) for cluster in plan.clusters),
        local_epochs=job.local_epochs,
        left_out=dict(plan.left_out) | dict(barred),
        reason=plan.reason,
        changed=planned.changed,
        assumed=dict(planned.assumed),
        predicted_s=_short(plan.predicted_s),
        lower_bound_s=_short(plan.lower_bound_s),
        predicted={
            device: phase_seconds_message(phases)
            for cluster in plan.clusters
            if cluster.phases
            for device, phases in predicted_phases(cluster).items()
        },
        predicted_j={device: _digits(joules) for device, joules in plan.joules.items()},
        alternatives=_alternatives(plan.alternatives) if plan.alternatives else None,
        codecs=job.codecs_of(plan),
    )


def phase_seconds_message(phases_s: Floats) -> PhaseSeconds:
    """Give seconds, [phase], their names."""
    return PhaseSeconds.of({phase: _digits(max(float(phases_s[phase]), 0.0)) for phase in Phase})


def _cluster_report(job: Job, cluster: ClusterPlan) -> ClusterReport:
    return ClusterReport(
        devices=cluster.devices,
        shares=tuple(round(share, SIGNIFICANT_DIGITS) for share in cluster.shares),
        predicted_s=_short(cluster.predicted_s),
        micro_batches=cluster.micro_batches,
        phi=cluster.phi,
        batch_sizes=cluster.batch_sizes or None,
        cuts=cluster.cuts or None,
        cut_layers=tuple(map(job.cut_name, cluster.cuts)) or None,
        num_samples=cluster.num_samples or None,
    )


def _alternatives(other: Alternatives) -> PlanAlternatives:
    return PlanAlternatives(
        best_other_cut=_cut(other.next_best_cut) if other.next_best_cut else None,
        random_clusters_s=_short(other.random_clusters_s),
        random_equal_shares_s=_short(other.random_equal_shares_s),
        sorted_clusters_s=_short(other.sorted_clusters_s),
        cuts=tuple(_cut(price) for price in other.cuts),
    )


def _cut(price: CutPrice) -> OtherCut:
    return OtherCut(
        cut_layer=price.name, round_s=_short(price.expected_s), infeasible=price.infeasible
    )


def _short(value: float | None) -> float | None:
    return None if value is None else _digits(value)


def _digits(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
