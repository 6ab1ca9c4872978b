"""Plans and measurements as the messages that people and programs read."""

from collections.abc import Mapping, Sequence

import numpy as np

from edge_coordinator.experience import TurnMeasured, predicted_phases
from edge_coordinator.job import Job
from edge_coordinator.metering import TurnTimes
from edge_coordinator.planner import PlannedRound
from edge_coordinator.planning.measured import DeviceTurn, measured_phases
from edge_coordinator.planning.plan import Alternatives, ClusterPlan, CutPrice, Plan
from edge_coordinator.round_training import Trained
from profiles.phases import Phase
from profiles.units import Floats
from runtime.wire.published import (
    ClusterReport,
    DeviceMetrics,
    OtherCut,
    PhaseSeconds,
    PlanAlternatives,
    PlanReport,
    RoundReport,
)

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
        clusters=tuple(_cluster_report(cluster) for cluster in plan.clusters),
        left_out=dict(plan.left_out) | dict(barred),
        reason=plan.reason,
        changed=planned.changed,
        assumed=dict(planned.assumed),
        predicted_s=_short(plan.predicted_s),
        predicted={
            device: phase_seconds_message(phases)
            for cluster in plan.clusters
            if cluster.phases
            for device, phases in predicted_phases(cluster).items()
        },
        alternatives=_alternatives(plan.alternatives) if plan.alternatives else None,
    )


def round_report(
    job: Job,
    round_: int,
    plan: Plan,
    trained: Trained,
    turns: Sequence[TurnMeasured],
    *,
    round_s: float,
) -> RoundReport:
    """Write down what a round's training gave; evaluation and traffic are added later."""
    return RoundReport(
        run=job.assignment.run,
        round=round_,
        cut_layer=job.cut_name(plan.cut),
        num_clusters=len(plan.clusters),
        num_devices=sum(len(cluster.devices) for cluster in plan.clusters),
        learning_rate=job.server_rate(round_),
        train_loss=sum(trained.losses) / len(trained.losses),
        round_s=round_s,
        elapsed_s=0.0,
        up_bytes=0,
        down_bytes=0,
        lost=trained.lost,
        predicted_round_s=plan.predicted_s,
        relative_error=plan.predicted_s / round_s - 1 if plan.predicted_s else None,
        measured=measured_message(turns),
    )


def measured_turns(
    plan: Plan,
    times: Sequence[TurnTimes],
    metrics: Mapping[str, DeviceMetrics],
    *,
    job: Job,
) -> list[TurnMeasured]:
    """Put together what the coordinator and the devices measured of each cluster's turn."""
    return [
        TurnMeasured(
            cluster,
            {
                device: _measured(device, cluster, turn, metrics.get(device), job=job)
                for device in cluster.devices
            },
            turn.turn_s,
        )
        for cluster, turn in zip(plan.clusters, times, strict=True)
    ]


def phase_seconds_message(phases_s: Floats) -> PhaseSeconds:
    """Give seconds, [phase], their names."""
    return PhaseSeconds.model_validate(
        {f"{phase.name.lower()}_s": _short(max(float(phases_s[phase]), 0.0)) for phase in Phase}
    )


def measured_message(turns: Sequence[TurnMeasured]) -> dict[str, PhaseSeconds]:
    """Device id to its measured seconds, of the devices that were measured in every phase."""
    return {
        device: phase_seconds_message(np.nan_to_num(phases_s))
        for turn in turns
        for device, phases_s in turn.phases_s.items()
        if np.isfinite(phases_s[Phase.FORWARD])
    }


def _measured(
    device: str,
    cluster: ClusterPlan,
    turn: TurnTimes,
    metrics: DeviceMetrics | None,
    *,
    job: Job,
) -> Floats:
    predicted = predicted_phases(cluster) if cluster.phases else {}
    device_turn = DeviceTurn(
        answers_s=turn.answers_s.get(device, ()),
        server_s=float(np.mean(turn.server_s or [0.0])) / len(cluster.devices),
        forward_s=metrics.phases.forward_s if metrics else None,
        backward_s=metrics.phases.backward_s if metrics else None,
        local_epochs=job.local_epochs,
        loss_on_device=job.is_local,
    )
    return measured_phases(device_turn, predicted_s=predicted.get(device, np.zeros(len(Phase))))


def _cluster_report(cluster: ClusterPlan) -> ClusterReport:
    return ClusterReport(
        devices=cluster.devices,
        shares=tuple(round(share, SIGNIFICANT_DIGITS) for share in cluster.shares),
        predicted_s=_short(cluster.predicted_s),
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
    return None if value is None else float(f"{value:.{SIGNIFICANT_DIGITS}g}")
