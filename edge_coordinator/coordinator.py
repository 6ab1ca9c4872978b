"""The coordinator of a run: devices in, rounds of training, reports out."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from edge_coordinator.checkpoint import Reached
from edge_coordinator.cluster import Member, RemoteCluster
from edge_coordinator.conversation import Conversation, DeviceGoneError
from edge_coordinator.edge_worker import EdgeWorker, OffLoopEdge
from edge_coordinator.graph_exports import GraphExports
from edge_coordinator.job import Job
from edge_coordinator.metering import MeteredCluster, MeteredEdge, TurnTimes
from edge_coordinator.planner import PlannedRound
from edge_coordinator.planning.plan import ClusterPlan, Plan
from edge_coordinator.progress import (
    ClusterStarted,
    Evaluating,
    Observer,
    Progress,
    RoundDone,
    RoundPlanned,
    Waiting,
)
from edge_coordinator.reports import measured_message, plan_report
from edge_coordinator.round_planning import RoundPlanning
from edge_coordinator.training.algorithm import ClusterLostError, train_cluster, train_locally
from edge_coordinator.training.edge_model import EdgeModel, Evaluation
from runtime.errors import SettingsError
from runtime.messages import Join
from runtime.published import RoundReport

ASK_AGAIN_S = 15.0
"""How long to wait for a device to come before those that did not answer are asked again."""
EVALUATION_CLUSTER = 0xFFFF
"""The cluster number of a round's evaluation on the devices, after all that train."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What a round of training gave."""

    losses: list[float] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    times: list[TurnTimes] = field(default_factory=list)


class SavedProgress(Protocol):
    """Where a run began or goes on, and where it is written down how far it has come."""

    @property
    def reached(self) -> Reached:
        """The last round that is done."""
        ...

    def save(self, model: EdgeModel, reached: Reached) -> None:
        """Write down that a round is done."""
        ...


class Coordinator:
    """Runs a job with whatever devices are there."""

    def __init__(
        self,
        job: Job,
        model: EdgeModel,
        conversation: Conversation,
        planning: RoundPlanning,
        exports: GraphExports,
        *,
        observers: Sequence[Observer],
        progress: SavedProgress,
    ) -> None:
        self._job = job
        self._model = model
        self._conversation = conversation
        self._planning = planning
        self._registry = conversation.registry
        self._exports = exports
        self._observers = observers
        self._progress = progress

    async def run(self, worker: EdgeWorker) -> None:
        """Wait for the devices, train all rounds, and let the devices go."""
        await self._until_there(self._job.settings.devices.count)
        self._started_s = time.monotonic() - self._progress.reached.elapsed_s
        round_, is_over = self._progress.reached.round + 1, False
        while not is_over:
            report = await self._round(round_, worker)
            if report is None:
                await self._until_there(1)
                continue
            self._tell(RoundDone(report))
            reached = Reached(report.round, report.elapsed_s)
            await worker.do(partial(self._progress.save, self._model, reached))
            is_over = self._job.is_over(report)
            round_ += 1
        await asyncio.gather(*(self._conversation.stop(device) for device in self._registry.ready))

    def _tell(self, progress: Progress) -> None:
        for observer in self._observers:
            observer.tell(progress)

    # Devices

    async def _until_there(self, num_devices: int) -> None:
        """Assign the job to whoever comes, until so many are ready."""
        while True:
            self._conversation.changed.clear()
            await self._admit()
            ready = list(self._registry.ready)
            if len(ready) >= num_devices:
                return
            names = f" ({', '.join(ready)})" if ready else ""
            refused = "".join(f"; {d}: {why}" for d, why in self._registry.refusals.items())
            self._job.check_refusals(self._registry.refusals)
            self._tell(Waiting(f"{len(ready)} of {num_devices} devices are ready{names}{refused}"))
            with contextlib.suppress(TimeoutError):  # One that was silent may answer now.
                async with asyncio.timeout(ASK_AGAIN_S):
                    await self._conversation.changed.wait()
            self._registry.silent.clear()

    async def _admit(self) -> None:
        """Assign the job to every device that is there and has not answered yet."""
        excluded = self._job.settings.devices.exclude
        newcomers = [device for device in self._registry.unassigned if device not in excluded]
        await asyncio.gather(*(self._assign(device) for device in newcomers))

    async def _assign(self, device: str) -> None:
        try:
            await self._conversation.assign(device, self._job.assignment)
        except DeviceGoneError as error:
            log.warning("%s does not take part: %s", device, error)
            self._registry.silent.add(device)

    # One round

    async def _round(self, round_: int, worker: EdgeWorker) -> RoundReport | None:
        """Plan, train and evaluate; None if nobody was there to train."""
        await self._admit()
        planned = await self._planned(round_, worker)
        if planned is None:
            return None
        plan = planned.plan
        if not await self._export(plan.cut, worker):
            return None
        up, down = self._conversation.up_bytes, self._conversation.down_bytes
        start_s = time.monotonic()
        trained = await self._train(round_, planned, worker)
        if not trained.losses:
            return None
        round_s = time.monotonic() - start_s
        up, down = self._conversation.up_bytes - up, self._conversation.down_bytes - down
        evaluation, where = await self._evaluate(round_, plan, worker)
        turns = await self._planning.measured(round_, planned, trained.times)
        if not trained.lost:
            self._planning.learn(turns, round_s=round_s)
        return RoundReport(
            run=self._conversation.run,
            round=round_,
            cut_layer=self._job.cut_name(plan.cut),
            num_clusters=len(plan.clusters),
            num_devices=sum(len(cluster.devices) for cluster in plan.clusters),
            learning_rate=self._job.server_rate(round_),
            train_loss=sum(trained.losses) / len(trained.losses),
            test_loss=evaluation.loss if evaluation else None,
            test_accuracy=evaluation.accuracy if evaluation else None,
            evaluated_on=where,
            round_s=round_s,
            elapsed_s=time.monotonic() - self._started_s,
            up_bytes=up,
            down_bytes=down,
            lost=trained.lost,
            predicted_round_s=plan.predicted_s,
            relative_error=plan.predicted_s / round_s - 1 if plan.predicted_s else None,
            measured=measured_message(turns),
        )

    async def _export(self, cut: int, worker: EdgeWorker) -> bool:
        """Export the device side where somebody needs it; False if those had to be refused."""
        try:
            await self._exports.prepare(cut, worker)
        except SettingsError as error:
            if self._job.cut is None:
                return False  # The next plan takes another.
            self._registry.refusals |= dict.fromkeys(self._exports.devices, str(error))
            self._job.check_refusals(self._registry.refusals)
            if not self._registry.ready:
                raise
            return False
        return True

    async def _planned(self, round_: int, worker: EdgeWorker) -> PlannedRound | None:
        """Plan, and wait if nobody can take part; None if nobody is there."""
        while True:
            self._conversation.learnt.clear()
            planned = await self._planning.plan(round_, worker)
            if planned is None:
                return None
            planned_for = {d for cluster in planned.plan.clusters for d in cluster.devices}
            if not planned_for <= self._registry.ready.keys():
                continue  # Somebody left while the plan was made.
            report = plan_report(self._job, round_, planned, refusals=self._registry.refusals)
            self._tell(RoundPlanned(report, self._job.num_rounds))
            if planned.plan.clusters:
                return planned
            reasons = "; ".join(f"{device} {why}" for device, why in report.left_out.items())
            self._tell(Waiting(f"{planned.plan.reason}: {reasons}"))
            await self._conversation.learnt.wait()

    async def _train(self, round_: int, planned: PlannedRound, worker: EdgeWorker) -> Trained:
        """First parallel, then sequential: the clusters' turns, one after another."""
        plan, trained = planned.plan, Trained()
        clusters = [self._cluster(round_, cluster, planned) for cluster in plan.clusters]
        await asyncio.gather(*(cluster.join() for cluster in clusters))
        for cluster, edge in self._turns(round_, plan, clusters, worker):
            metered = MeteredCluster(cluster)
            try:
                trained.losses.extend(await self._turn(metered, edge))
            except ClusterLostError as error:
                log.warning("round %d: %s", round_, error)
            trained.times.append(metered.finish())
            trained.lost.update(cluster.lost)
        return trained

    async def _turn(self, cluster: MeteredCluster, edge: OffLoopEdge) -> list[float]:
        metered = MeteredEdge(edge, cluster.times)
        if self._job.is_local:
            return await train_locally(cluster, metered)
        return await train_cluster(cluster, metered, local_epochs=self._job.local_epochs)

    def _turns(
        self, round_: int, plan: Plan, clusters: Sequence[RemoteCluster], worker: EdgeWorker
    ) -> Iterator[tuple[RemoteCluster, OffLoopEdge]]:
        for index, cluster in enumerate(clusters):
            devices = tuple(cluster.sample_counts)
            self._tell(ClusterStarted(round_, index, len(clusters), devices))
            turn = self._model.turn(
                cut=plan.cut, round_=round_, learning_rate=self._job.server_rate(round_)
            )
            yield cluster, worker.edge(turn)

    def _cluster(self, round_: int, cluster: ClusterPlan, planned: PlannedRound) -> RemoteCluster:
        join = Join(
            run=self._conversation.run,
            round=round_,
            cluster=self._conversation.next_turn(round_),
            purpose="train_locally" if self._job.is_local else "train",
            cut=planned.plan.cut,
            local_epochs=self._job.local_epochs,
            learning_rate=self._job.device_rate(round_, len(cluster.devices)),
        )
        return self._remote(join, cluster.devices, up_share_bps=planned.up_share_bps)

    def _remote(
        self, join: Join, devices: Sequence[str], *, up_share_bps: Mapping[str, float]
    ) -> RemoteCluster:
        batch_size = self._job.settings.training.batch_size
        members = []
        for device in devices:
            ready = self._registry.ready[device]
            evaluates = join.purpose == "evaluate"
            size = ready.num_held_out if evaluates else min(batch_size, ready.num_samples)
            members.append(Member(device, ready, size))
        return RemoteCluster(
            self._conversation,
            members,
            joins={
                device: join.model_copy(
                    update={
                        "graphs": self._exports.offer(device, join.cut),
                        "up_share_bps": up_share_bps.get(device),
                    }
                )
                for device in devices
            },
            smashed_shape=self._job.smashed_shape(join.cut),
            num_classes=self._job.assignment.num_classes,
        )

    # Evaluation

    async def _evaluate(
        self, round_: int, plan: Plan, worker: EdgeWorker
    ) -> tuple[Evaluation | None, str | None]:
        """Evaluate where the job says, if this round is one for it."""
        if not self._job.evaluates_in(round_):
            return None, None
        self._tell(Evaluating(round_))
        test = self._job.test
        if test is not None:
            return await worker.do(lambda: self._model.evaluate(test.x, test.y)), "coordinator"
        return await self._evaluate_on_devices(round_, plan.cut, worker), "devices"

    async def _evaluate_on_devices(
        self, round_: int, cut: int, worker: EdgeWorker
    ) -> Evaluation | None:
        devices = [d for d, ready in self._registry.ready.items() if ready.num_held_out]
        if not devices:
            return None
        join = Join(
            run=self._conversation.run,
            round=round_,
            cluster=EVALUATION_CLUSTER,
            purpose="evaluate",
            cut=cut,
            local_epochs=1,
            learning_rate=0.0,
        )
        cluster = self._remote(join, devices, up_share_bps={})
        await cluster.join()
        turn = self._model.turn(cut=cut, round_=round_, learning_rate=0.0)
        try:
            await cluster.load(await worker.edge(turn).device_side())
            smashed = await cluster.forward()
        except ClusterLostError as error:
            log.warning("round %d could not be evaluated: %s", round_, error)
            return None
        return await worker.do(lambda: self._model.evaluate_smashed(cut, smashed))
