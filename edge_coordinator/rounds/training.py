"""Training one round: the clusters' turns one after another, and undoing what does not count."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.devices.deadlines import Answer, predicted_answers
from edge_coordinator.job.job import Job
from edge_coordinator.planning.plan import ClusterPlan, Plan
from edge_coordinator.replanning.planner import PlannedRound
from edge_coordinator.rounds.aggregated_cluster import AggregatedCluster
from edge_coordinator.rounds.bounded_turn import TurnBounds
from edge_coordinator.rounds.device_graphs import GraphExports
from edge_coordinator.rounds.overlapped_cluster import OverlappedCluster
from edge_coordinator.rounds.recorded_turn import record_round, record_turn
from edge_coordinator.rounds.remote_cluster import Late, Member, RemoteCluster, least_of
from edge_coordinator.rounds.sample_counts import SampleCounts
from edge_coordinator.rounds.server_thread import EdgeWorker
from edge_coordinator.rounds.turn_within_bounds import train_turn
from edge_coordinator.run.events import ClusterStarted, Progress
from edge_coordinator.training.algorithm import (
    ClusterLostError,
    SpoiltStepError,
    StepFailedError,
)
from edge_coordinator.training.bounds import Bounds
from edge_coordinator.training.edge_model import EdgeModel
from edge_coordinator.training.turn import Turn
from profiles.phases import Phase
from runtime.errors import CannotTrainError
from runtime.wire.commands import Join, Ready

EVALUATION_CLUSTER = 0xFFFF
"""The cluster number of a round's evaluation on the devices, after all that train."""

log = logging.getLogger(__name__)


class Turns:
    """Makes the remote clusters of a run."""

    def __init__(self, job: Job, channel: DeviceChannel, exports: GraphExports) -> None:
        self._job = job
        self._channel = channel
        self._registry = channel.registry
        self._exports = exports
        self.counts = SampleCounts(channel.registry)

    def training(
        self, round_: int, cluster: ClusterPlan, planned: PlannedRound, believed: Mapping[str, int]
    ) -> RemoteCluster:
        """Have the devices of a cluster train together; `believed` are their sample counts."""
        join = Join(
            run=self._channel.run,
            round=round_,
            cluster=self._channel.next_turn(round_),
            purpose="train_locally" if self._job.loss_on_device else "train",
            cut=planned.plan.cut,
            local_epochs=self._job.local_epochs,
            learning_rate=self._job.device_rate(round_, len(cluster.devices)),
            codecs=self._job.codecs_of(planned.plan),
            micro_batches=self._micro_batches(cluster, planned.plan.cut),
        )
        phases = dict(zip(cluster.devices, cluster.phases, strict=False))
        predicted_s = {
            device: predicted_answers(own, local_epochs=self._job.local_epochs)
            for device, own in phases.items()
        }
        sizes, grown = dict(zip(cluster.devices, cluster.batch_sizes, strict=False)), cluster.counts
        counts = dict.fromkeys(sizes, 1) or believed  # What is shared out, gradients have in them.
        members = [
            self._member(d, predicted_s.get(d, {}), counts.get(d), sizes.get(d), grown.get(d))
            for d in cluster.devices
        ]
        asked = {
            d: {"clip": clip, "batch_size": sizes.get(d), "num_samples": grown.get(d)}
            for d, clip in self._job.device_clips(cluster).items()
        }
        quorum = 1.0 if planned.is_exact else self._job.settings.devices.cluster_quorum
        count = self._job.num_aggregated([member.batch_size for member in members])
        join = join.model_copy(update={"aggregated": count or None})
        remote = self._remote(
            join, members, own=asked, up_share_bps=planned.up_share_bps, quorum=quorum
        )
        if isinstance(remote, OverlappedCluster):
            after = (Phase.DOWNLOAD, Phase.BACKWARD)
            remote.open({d: sum(own[each] for each in after) for d, own in phases.items()})
        return remote

    def _micro_batches(self, cluster: ClusterPlan, cut: int) -> int | None:
        """How many micro-batches a cluster's mini-batches go in; None if they stay whole."""
        wanted = min(cluster.micro_batches, self._job.settings.training.batch_size)
        return wanted if wanted > 1 and cut not in self._exports.fixed else None

    def evaluation(self, round_: int, devices: Sequence[str], *, cut: int) -> RemoteCluster:
        """Have devices evaluate on what they hold out."""
        join = Join(
            run=self._channel.run,
            round=round_,
            cluster=EVALUATION_CLUSTER,
            purpose="evaluate",
            cut=cut,
            local_epochs=1,
            learning_rate=0.0,
        )
        members = []
        for device in devices:
            ready = self._ready(device)
            members.append(Member(device, ready, ready.num_held_out))
        return self._remote(join, members, own={}, up_share_bps={}, quorum=0.0)

    def _member(
        self,
        device: str,
        predicted_s: Mapping[Answer, float],
        believed: int | None,
        batch_size: int | None,
        num_samples: int | None,
    ) -> Member:
        ready = self._ready(device)
        if num_samples is not None:
            ready = ready.model_copy(update={"num_samples": num_samples})
        size = min(batch_size or self._job.settings.training.batch_size, ready.num_samples)
        return Member(device, ready, size, predicted_s, believed)

    def _ready(self, device: str) -> Ready:
        ready = self._registry.records[device].ready
        assert ready is not None
        return ready

    def _remote(
        self,
        join: Join,
        members: Sequence[Member],
        *,
        own: Mapping[str, Mapping[str, object]],
        up_share_bps: Mapping[str, float],
        quorum: float,
    ) -> RemoteCluster:
        """Reach the members; `own` is what is asked of each of them alone."""
        kind = RemoteCluster if join.aggregated is None else AggregatedCluster
        return (kind if join.micro_batches is None else OverlappedCluster)(
            self._channel,
            members,
            joins={
                member.device: join.model_copy(
                    update={
                        "graphs": self._exports.offer(member.device, join.cut),
                        "frozen": self._exports.frozen(join.cut),
                        "up_share_bps": up_share_bps.get(member.device),
                        **own.get(member.device, {}),
                    }
                )
                for member in members
            },
            smashed_shape=self._job.smashed_shape(join.cut),
            num_classes=self._job.assignment.num_classes,
            quorum=quorum,
            rate_by_size=self._job.steps_by_size,
            seed=self._job.settings.seed,
        )


@dataclass(frozen=True)
class TurnTimes:
    """Seconds of one cluster's turn as the coordinator sees them."""

    devices: tuple[str, ...]
    """Those that came to its end."""
    answers_s: Mapping[str, Sequence[float]]
    """From each request to each device's answer: the model, then every gradient."""
    server_s: Sequence[float]
    """Of each local epoch."""
    turn_s: float


@dataclass
class Trained:
    """What a round of training gave."""

    losses: list[float] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    """Whose training counts."""
    lost: dict[str, str] = field(default_factory=dict)
    late: dict[str, Late] = field(default_factory=dict)
    times: list[TurnTimes] = field(default_factory=list)
    caught: dict[str, str] = field(default_factory=dict)
    """Device id to what it sent that would have spoilt the model; it is lost as well."""
    failures: list[str] = field(default_factory=list)
    """Why the server side could not train on what a cluster sent."""
    undone: str = ""
    """Why nothing of the round counts, if so; then the model is as it was before."""


class RoundTraining:
    """First parallel, then sequential; a turn or a round below its quorum leaves no trace."""

    def __init__(
        self,
        job: Job,
        model: EdgeModel,
        turns: Turns,
        tell: Callable[[Progress], None],
        *,
        bounds: Bounds | None,
    ) -> None:
        """`bounds` of what devices send; none if whatever they send is taken."""
        self._job = job
        self._model = model
        self._turns = turns
        self._tell = tell
        self._bounds = bounds

    async def train(self, round_: int, planned: PlannedRound, worker: EdgeWorker) -> Trained:
        """Train every cluster of the plan in its turn."""
        trained = Trained()
        plans = planned.plan.clusters
        believed = self._turns.counts.believed(planned.plan)
        clusters = [self._turns.training(round_, plan, planned, believed) for plan in plans]
        start_s, before = time.monotonic(), await worker.do(self._model.snapshot)
        await asyncio.gather(*(cluster.join() for cluster in clusters))
        for index, cluster in enumerate(clusters):
            self._tell(ClusterStarted(round_, index, len(clusters), tuple(cluster.sample_counts)))
            await self._train_cluster(round_, planned, cluster, worker, trained)
        num_planned = sum(len(plan.devices) for plan in plans)
        if trained.failures and not trained.devices:
            raise CannotTrainError(f"no cluster can train in round {round_}: {trained.failures[0]}")
        quorum = 1.0 if planned.is_exact else self._job.settings.devices.round_quorum
        least = least_of(num_planned, quorum)
        if len(trained.devices) < least:
            await worker.do(partial(self._model.restore, before))
            reasons = "; ".join(f"{device} {why}" for device, why in trained.lost.items())
            trained.undone = (
                f"{len(trained.devices)} of {num_planned} devices trained, at least {least} are "
                f"needed, so round {round_} is tried again: {reasons}"
            )
        record_round(clusters, since_s=start_s, why_undone=trained.undone)
        return trained

    async def _train_cluster(
        self,
        round_: int,
        planned: PlannedRound,
        cluster: RemoteCluster,
        worker: EdgeWorker,
        trained: Trained,
    ) -> None:
        """Give a cluster its turn, and add to the round what came of it."""
        start_s = time.monotonic()
        before = await worker.do(self._model.snapshot)
        turn = self._model.turn(
            cut=planned.plan.cut,
            round_=round_,
            learning_rate=self._job.server_rate(round_),
            aggregated=cluster.aggregated if isinstance(cluster, AggregatedCluster) else 0,
        )
        edge = worker.edge(turn)
        bounds = self._turn_bounds(planned.plan, turn, cluster, worker)
        try:
            losses = await train_turn(self._job, cluster, edge, bounds)
        except ClusterLostError as error:
            if isinstance(error, StepFailedError):
                trained.failures.append(str(error))
            if isinstance(error, SpoiltStepError):
                trained.caught |= error.culprits
            await worker.do(partial(self._model.restore, before))
            log.warning("round %d, a turn is undone: %s", round_, error)
        else:
            trained.losses += losses
            trained.devices += cluster.sample_counts
        turn_s = time.monotonic() - start_s
        trained.times.append(TurnTimes(cluster.finished, cluster.answers_s, edge.steps_s, turn_s))
        record_turn(cluster, edge, since_s=start_s)
        trained.caught |= bounds.caught if bounds else {}
        trained.lost |= cluster.lost | trained.caught
        trained.late |= cluster.late

    def _turn_bounds(
        self, plan: Plan, turn: Turn, cluster: RemoteCluster, worker: EdgeWorker
    ) -> TurnBounds | None:
        if self._bounds is None:
            return None
        self._bounds.at_cut(plan.cut)
        return TurnBounds(
            self._bounds, worker, turn.device_parts(), cluster.learning_rate, plan.batch_shares
        )
