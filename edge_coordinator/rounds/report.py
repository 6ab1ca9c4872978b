"""What a round measured, as the message that people and programs read."""

from collections.abc import Mapping, Sequence

import numpy as np

from edge_coordinator.job.job import Job
from edge_coordinator.planning.measured import DeviceTurn, measured_phases
from edge_coordinator.planning.plan import ClusterPlan, Plan
from edge_coordinator.replanning.corrections import TurnMeasured, predicted_phases
from edge_coordinator.replanning.report import phase_seconds_message
from edge_coordinator.rounds.trained import Trained, TurnTimes
from profiles.corrections import phase_array
from profiles.phases import Phase
from profiles.units import Floats
from runtime.wire.measures import PhaseSeconds
from runtime.wire.published import DeviceMetrics, RoundReport


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
    server_s = float(np.mean(turn.server_s or [0.0])) * _part_of(device, cluster)
    if cluster.micro_batches > 1:
        return _overlapping(metrics, server_s=server_s)
    predicted = predicted_phases(cluster) if cluster.phases else {}
    device_turn = DeviceTurn(
        answers_s=turn.answers_s.get(device, ()),
        server_s=server_s,
        forward_s=metrics.phases.forward_s if metrics else None,
        backward_s=metrics.phases.backward_s if metrics else None,
        local_epochs=job.local_epochs,
        loss_on_device=job.loss_on_device,
    )
    return measured_phases(device_turn, predicted_s=predicted.get(device, np.zeros(len(Phase))))


def _part_of(device: str, cluster: ClusterPlan) -> float:
    """Which part of a cluster's samples a device has."""
    if not cluster.batch_sizes:
        return 1 / len(cluster.devices)
    return cluster.batch_sizes[cluster.devices.index(device)] / sum(cluster.batch_sizes)


def _overlapping(metrics: DeviceMetrics | None, *, server_s: float) -> Floats:
    """Seconds of phases that overlap, as the device timed each, [phase]; NaN if it did not say."""
    if metrics is None:
        return np.full(len(Phase), np.nan)
    phases_s = phase_array(metrics.phases.by_phase)
    phases_s[Phase.SERVER] = server_s
    return phases_s
