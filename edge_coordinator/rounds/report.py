"""What a run tells of its rounds: each plan, and what a round measured, as people read them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.job.job import Job
from edge_coordinator.planning.measured import DeviceTurn, measured_phases
from edge_coordinator.planning.plan import ClusterPlan, Plan
from edge_coordinator.planning.unplanned import unpredicted
from edge_coordinator.replanning.corrections import TurnMeasured, predicted_phases
from edge_coordinator.replanning.planner import PlannedRound
from edge_coordinator.replanning.report import phase_seconds_message, plan_report
from edge_coordinator.rounds.trained import Trained, TurnTimes
from edge_coordinator.run.events import Observer, Progress, RoundPlanned, Waiting
from edge_coordinator.run.faults import Faults
from profiles.corrections import phase_array
from profiles.phases import Phase
from profiles.units import Floats
from runtime.wire.measures import PhaseSeconds
from runtime.wire.published import DeviceMetrics, PlanReport, RoundReport


class RoundTraffic:
    """Counts bytes to and fro while a round is trained, and messages dropped from its plan on."""

    def __init__(self, channel: DeviceChannel) -> None:
        self._channel = channel
        self._newer = channel.inbound.newer
        self._dropped = channel.dropped.counts.copy()
        self._unknown_fields = self._newer.unknown_fields.copy()
        self._up_bytes = self._down_bytes = 0

    def begin_training(self) -> None:
        """Count bytes from here on."""
        self._up_bytes, self._down_bytes = self._so_far()

    def end_training(self) -> None:
        """Count no more bytes: those of an evaluation are not its round's."""
        up_bytes, down_bytes = self._so_far()
        self._up_bytes, self._down_bytes = up_bytes - self._up_bytes, down_bytes - self._down_bytes

    def reported(self) -> dict[str, object]:
        """Give it the names that a round's report has for it."""
        return {
            "up_bytes": self._up_bytes,
            "down_bytes": self._down_bytes,
            "dropped": self._channel.dropped.since(self._dropped),
            "unknown_fields": self._newer.since(self._unknown_fields),
        }

    def _so_far(self) -> tuple[int, int]:
        return self._channel.inbound.up_bytes, self._channel.down_bytes


class Reporting:
    """Tells observers of a run; what goes wrong in that is left out, and counted."""

    def __init__(
        self, job: Job, channel: DeviceChannel, observers: Sequence[Observer], faults: Faults
    ) -> None:
        self._job = job
        self._channel = channel
        self._observers = observers
        self._faults = faults

    def tell(self, progress: Progress) -> None:
        """Tell every observer."""
        for observer in self._observers:
            with self._faults.gone_on_from("telling of the run", instead="it goes on untold"):
                observer.tell(progress)

    def say(self, what: str) -> None:
        """Say what is waited for."""
        self.tell(Waiting(what))

    def plan(
        self, round_: int, planned: PlannedRound, barred: Mapping[str, str]
    ) -> tuple[PlannedRound, PlanReport]:
        """Tell of a plan; what cannot be told of it counts for nothing in the round either."""
        planned, report = self._planned(round_, planned, barred)
        self.tell(RoundPlanned(report, self._job.num_rounds, planned.basis))
        return planned, report

    def _planned(
        self, round_: int, planned: PlannedRound, barred: Mapping[str, str]
    ) -> tuple[PlannedRound, PlanReport]:
        with self._faults.gone_on_from("reporting a plan", instead="its seconds are left out"):
            return planned, plan_report(self._job, round_, planned, barred=barred)
        planned = replace(planned, plan=unpredicted(planned.plan))
        return planned, plan_report(self._job, round_, planned, barred=barred)

    def round(
        self,
        round_: int,
        plan: Plan,
        trained: Trained,
        turns: Sequence[TurnMeasured],
        drawn_j: Mapping[str, float],
        *,
        round_s: float,
    ) -> RoundReport:
        """Write down what a round's training gave; evaluation and traffic are added later."""
        with self._faults.gone_on_from("reporting a round", instead="its seconds are left out"):
            report = round_report(self._job, round_, plan, trained, turns, round_s=round_s)
            return report.model_copy(update={"drawn_j": drawn_j})
        return round_report(self._job, round_, unpredicted(plan), trained, [], round_s=round_s)

    def traffic(self) -> RoundTraffic:
        """Begin to count a round's traffic."""
        return RoundTraffic(self._channel)

    def new_faults(self) -> dict[str, int]:
        """Count what went wrong, and was gone on from, since this was asked last."""
        return self._faults.new_ones()


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
        TurnMeasured(cluster, _measured(cluster, turn, metrics, job=job), turn.turn_s)
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
    cluster: ClusterPlan,
    turn: TurnTimes,
    metrics: Mapping[str, DeviceMetrics],
    *,
    job: Job,
) -> dict[str, Floats]:
    """Measured seconds of each device of a cluster, [phase]."""
    server_s = float(np.mean(turn.server_s or [0.0]))
    parts = dict(zip(cluster.devices, _parts_of(cluster), strict=True))
    predicted = predicted_phases(cluster) if cluster.phases else {}

    def of(device: str) -> Floats:
        own = metrics.get(device)
        if cluster.micro_batches > 1:
            return _overlapping(own, server_s=server_s * parts[device])
        device_turn = DeviceTurn(
            answers_s=turn.answers_s.get(device, ()),
            server_s=server_s * parts[device],
            forward_s=own.phases.forward_s if own else None,
            backward_s=own.phases.backward_s if own else None,
            local_epochs=job.local_epochs,
            loss_on_device=job.loss_on_device,
        )
        return measured_phases(device_turn, predicted_s=predicted.get(device, np.zeros(len(Phase))))

    return {device: of(device) for device in cluster.devices}


def _parts_of(cluster: ClusterPlan) -> list[float]:
    """Which part of a cluster's samples each of its devices has."""
    sizes = cluster.batch_sizes or (1,) * len(cluster.devices)
    num_samples = sum(sizes)
    return [size / num_samples for size in sizes]


def _overlapping(metrics: DeviceMetrics | None, *, server_s: float) -> Floats:
    """Seconds of phases that overlap, as the device timed each, [phase]; NaN if it did not say."""
    if metrics is None:
        return np.full(len(Phase), np.nan)
    phases_s = phase_array(metrics.phases.by_phase)
    phases_s[Phase.SERVER] = server_s
    return phases_s
