"""Training one round: the clusters' turns one after another, and undoing what does not count."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.devices.deadlines import Answer, predicted_answers
from edge_coordinator.job.job import Job
from edge_coordinator.planning.plan import ClusterPlan, Plan
from edge_coordinator.replanning.planner import PlannedRound
from edge_coordinator.rounds.aggregated_cluster import AggregatedCluster
from edge_coordinator.rounds.bounded_turn import TurnBounds
from edge_coordinator.rounds.device_graphs import GraphExports
from edge_coordinator.rounds.members import Member, Members, least_of
from edge_coordinator.rounds.overlapped_cluster import OverlappedCluster
from edge_coordinator.rounds.recorded_turn import record_round, record_turn
from edge_coordinator.rounds.remote_cluster import RemoteCluster
from edge_coordinator.rounds.sample_counts import SampleCounts
from edge_coordinator.rounds.server_thread import EdgeWorker
from edge_coordinator.rounds.trained import Trained, TurnTimes
from edge_coordinator.rounds.turn_within_bounds import train_turn
from edge_coordinator.run.events import ClusterStarted, Progress
from edge_coordinator.training.algorithm import (
    ClusterLostError,
    SpoiltStepError,
    StepFailedError,
)
from edge_coordinator.training.bounds import Bounds
from edge_coordinator.training.cuts import CutsOfTurn
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
        cuts = planned.plan.cuts_of(cluster)
        join = Join(
            run=self._channel.run,
            round=round_,
            cluster=self._channel.next_turn(round_),
            purpose="train_locally" if self._job.loss_on_device else "train",
            cut=planned.plan.cut,
            local_epochs=self._job.local_epochs,
            learning_rate=self._job.device_rate(round_, len(cluster.devices)),
            codecs=self._job.codecs_of(planned.plan),
            micro_batches=self._micro_batches(cluster, cuts),
        )
        phases = dict(zip(cluster.devices, cluster.phases, strict=False))
        predicted_s = {
            device: predicted_answers(own, local_epochs=self._job.local_epochs)
            for device, own in phases.items()
        }
        joins = self._joins(join, cluster, cuts, planned.up_share_bps)
        # What is shared out, gradients have in them.
        counts = dict.fromkeys(joins, 1) if cluster.batch_sizes else believed
        members = [
            self._member(d, joins[d], predicted_s.get(d, {}), counts.get(d))
            for d in cluster.devices
        ]
        quorum = 1.0 if planned.is_exact else self._job.settings.devices.cluster_quorum
        count = self._job.num_aggregated(cluster, [each.batch_size for each in members]) or None
        joins = {d: own.model_copy(update={"aggregated": count}) for d, own in joins.items()}
        remote = self._remote(members, joins, quorum=quorum)
        if isinstance(remote, OverlappedCluster):
            after = (Phase.DOWNLOAD, Phase.BACKWARD)
            tails_s = {d: sum(own[each] for each in after) for d, own in phases.items()}
            remote.open(tails_s, batch_size=self._job.settings.training.batch_size)
        return remote

    def _joins(
        self,
        join: Join,
        cluster: ClusterPlan,
        cuts: Mapping[str, int],
        up_share_bps: Mapping[str, float],
    ) -> dict[str, Join]:
        """Ask each device of a cluster for what is its own."""
        sizes, grown = dict(zip(cluster.devices, cluster.batch_sizes, strict=False)), cluster.counts
        return {
            device: join.model_copy(
                update={
                    "cut": cuts[device],
                    "clip": clip,
                    "batch_size": sizes.get(device),
                    "num_samples": grown.get(device),
                    "up_share_bps": up_share_bps.get(device),
                }
            )
            for device, clip in self._job.device_clips(cluster).items()
        }

    def _micro_batches(self, cluster: ClusterPlan, cuts: Mapping[str, int]) -> int | None:
        """How many micro-batches a cluster's mini-batches go in; None if they stay whole."""
        wanted = min(cluster.micro_batches, self._job.settings.training.batch_size)
        is_fixed = not self._exports.fixed.isdisjoint(cuts.values())
        return wanted if wanted > 1 and not is_fixed else None

    def evaluation(self, round_: int, cuts: Mapping[str, int]) -> RemoteCluster:
        """Have devices evaluate on what they hold out."""
        join = Join(
            run=self._channel.run,
            round=round_,
            cluster=EVALUATION_CLUSTER,
            purpose="evaluate",
            cut=max(cuts.values()),
            local_epochs=1,
            learning_rate=0.0,
        )
        members = []
        for device, cut in cuts.items():
            ready, shape = self._ready(device), self._job.smashed_shape(cut)
            members.append(Member(device, ready, ready.num_held_out, shape))
        joins = {
            device: join.model_copy(update={"cut": cut, "up_share_bps": None})
            for device, cut in cuts.items()
        }
        return self._remote(members, joins, quorum=0.0)

    def _member(
        self, device: str, join: Join, predicted_s: Mapping[Answer, float], believed: int | None
    ) -> Member:
        ready = self._ready(device)
        if join.num_samples is not None:
            ready = ready.model_copy(update={"num_samples": join.num_samples})
        size = min(join.batch_size or self._job.settings.training.batch_size, ready.num_samples)
        return Member(device, ready, size, self._job.smashed_shape(join.cut), predicted_s, believed)

    def _ready(self, device: str) -> Ready:
        ready = self._registry.records[device].ready
        assert ready is not None
        return ready

    def _remote(
        self, members: Sequence[Member], joins: Mapping[str, Join], *, quorum: float
    ) -> RemoteCluster:
        """Reach the members, each asked for what is its own."""
        parts = self._exports.model.device_parts({d: own.cut for d, own in joins.items()})
        one = next(iter(joins.values()))
        kind = RemoteCluster if one.aggregated is None else AggregatedCluster
        offered = {
            device: own.model_copy(
                update={
                    "graphs": self._exports.offer(device, own.cut),
                    "frozen": self._exports.frozen(own.cut),
                }
            )
            for device, own in joins.items()
        }
        return (kind if one.micro_batches is None else OverlappedCluster)(
            self._channel,
            Members(members, offered, quorum=quorum),
            parts=parts,
            num_classes=self._job.assignment.num_classes,
            rate_by_size=self._job.steps_by_size,
            seed=self._job.settings.seed,
        )


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
            cuts = self._job.turn_cuts(round_, planned.plan, plans[index])
            await self._train_cluster(round_, planned, cluster, worker, trained, cuts=cuts)
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
        *,
        cuts: CutsOfTurn,
    ) -> None:
        """Give a cluster its turn, and add to the round what came of it."""
        start_s = time.monotonic()
        before = await worker.do(self._model.snapshot)
        rate = self._job.server_rate(round_)
        make_turn = partial(self._model.turn, cut=cuts, round_=round_, learning_rate=rate)
        turn = await worker.do(partial(make_turn, aggregated=cluster.aggregated))
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
        self._bounds.at_cut(plan.cut, plan.own_cuts)
        return TurnBounds(
            self._bounds,
            worker,
            turn.device_parts(),
            cluster.parts,
            cluster.learning_rate,
            plan.batch_shares,
        )
