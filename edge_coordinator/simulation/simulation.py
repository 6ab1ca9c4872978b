"""A whole run under a virtual clock: plans, trains and evaluates as the coordinator does."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from edge_coordinator.job.job import Job
from edge_coordinator.planning.plan import ClusterPlan, Plan
from edge_coordinator.replanning.memory import RunMemory
from edge_coordinator.replanning.planner import PlannedRound
from edge_coordinator.replanning.report import plan_report
from edge_coordinator.run.checkpoint import Reached, SavedProgress
from edge_coordinator.run.events import (
    ClusterStarted,
    Evaluating,
    Observer,
    Progress,
    RoundDone,
    RoundPlanned,
)
from edge_coordinator.simulation.cluster import InProcessCluster, TurnTask
from edge_coordinator.simulation.costs import (
    Costs,
    RoundCosts,
    costs_of,
    counted_costs,
    round_costs,
)
from edge_coordinator.simulation.edge import InlineEdge
from edge_coordinator.simulation.planning import SimulatedPlan, make_workload, plan_source
from edge_coordinator.simulation.traffic import Traffic
from edge_coordinator.simulation.world import OwnSamples, World, make_shards
from edge_coordinator.training.algorithm import Smashed, train_cluster, train_locally
from edge_coordinator.training.averaging import believed_counts, doubts
from edge_coordinator.training.edge_model import EdgeModel
from edge_coordinator.training.evaluation import Evaluation
from edge_coordinator.training.overlapped_turn import train_overlapped
from profiles.scenario import Scenario
from profiles.units import BITS_PER_BYTE
from runtime.datasets.shard import Shard
from runtime.errors import DivergedError
from runtime.models.device_side import DeviceNetwork
from runtime.wire.codecs.turn import TurnCoder
from runtime.wire.frames import StepId, spec_of
from runtime.wire.micro_batches import FirstSamples
from runtime.wire.published import RoundReport

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SimulatedRound:
    """A round that was trained, and what the latency model says it cost."""

    report: RoundReport
    plan: Plan
    costs: RoundCosts


class Simulation:
    """Trains a job in this process; seconds are those of the scenario's devices.

    `own` holds the samples of all devices, the excluded ones too: their order numbers them.
    """

    def __init__(self, job: Job, model: EdgeModel, own: OwnSamples, scenario: Scenario) -> None:
        self.scenario = scenario
        self._job = job
        self._model = model
        shards = make_shards(job, own, scenario)
        self.costs: Costs = costs_of(scenario, job, model)
        self.counted = counted_costs(job, model)
        """The network's own costs, also where the scenario states others."""
        label = spec_of(next(iter(shards.values())).packed[:1])
        self.label_bits = float(label.num_bytes * BITS_PER_BYTE)
        """Of the data, also where the scenario states others."""
        self.workload = make_workload(job, scenario, self.costs, own_label_bits=self.label_bits)
        self.world = World(
            scenario,
            sorted(own),
            shards,
            self.costs.table,
            seed=job.settings.seed,
            power=job.settings.plan.power_of,
        )
        self._planning = plan_source(
            job, self.world, self.costs, self.workload, devices=sorted(shards)
        )
        self._at_start = self.world.at_start()
        self._networks: list[DeviceNetwork] = []
        self._doubted = set[str]()
        """Whose number of samples is not believed."""

    @property
    def num_devices(self) -> int:
        """How many take part."""
        return len(self._at_start)

    def check_first_plan(self) -> None:
        """CannotTrainError if the first round has no plan; of a simulation that is not run."""
        self._planning.plan(1, elapsed_s=0.0)

    def price(self, round_: int, *, elapsed_s: float) -> tuple[float, RoundCosts]:
        """Plan a round that is not trained: its seconds, and where they go."""
        planned = self._planning.plan(round_, elapsed_s=elapsed_s)
        costs = round_costs(planned.priced, self.workload)
        return planned.round_s, costs

    async def run(
        self, *, observers: Sequence[Observer], progress: SavedProgress
    ) -> list[SimulatedRound]:
        """Train all rounds that are left."""
        with self._model.on_all_devices(self._planning.faults.count):
            return await self._rounds(observers, progress)

    async def _rounds(
        self, observers: Sequence[Observer], progress: SavedProgress
    ) -> list[SimulatedRound]:
        torch.set_num_threads(1)  # As an agent has it: another number sums in another order.
        reached, rounds, is_over = progress.reached, list[SimulatedRound](), False
        if (planned := RunMemory.decode(reached.memory).simulated) is not None:
            self._planning.recall(planned)
        while not is_over:
            done = await self._round(reached, observers)
            rounds.append(done)
            _tell(observers, RoundDone(done.report))
            memory = RunMemory(simulated=self._planning.remember())
            standing = self._job.standing_after(reached.standing, done.report)
            reached = Reached(done.report.round, done.report.elapsed_s, memory.encode(), standing)
            progress.save(self._model, reached)
            is_over = bool(self._job.why_over(done.report, standing))
        return rounds

    async def _round(self, before: Reached, observers: Sequence[Observer]) -> SimulatedRound:
        job, round_ = self._job, before.round + 1
        planned = self._planning.plan(round_, elapsed_s=before.elapsed_s)
        _tell(observers, self._announcement(round_, planned))
        traffic = Traffic(chunk_bytes=job.settings.broker.chunk_bytes)
        losses = await self._train(round_, planned.plan, traffic, observers)
        evaluation = self._evaluate(round_, planned.plan, observers)
        if not np.isfinite([*losses, evaluation.loss if evaluation else 0.0]).all():
            raise DivergedError(
                f"the loss is no longer finite in round {round_}: training diverged; take a lower "
                "training.server_optimizer.learning_rate"
            )
        report = RoundReport(
            run=job.assignment.run,
            round=round_,
            cut_layer=job.cut_name(planned.plan.cut),
            num_clusters=len(planned.plan.clusters),
            num_devices=sum(len(cluster.devices) for cluster in planned.plan.clusters),
            learning_rate=job.server_rate(round_),
            train_loss=sum(losses) / len(losses),
            evaluated_on=("coordinator" if job.test else "devices") if evaluation else None,
            round_s=planned.round_s,
            elapsed_s=before.elapsed_s + planned.round_s,
            up_bytes=traffic.up_bytes,
            down_bytes=traffic.down_bytes,
            faults=self._planning.faults.new_ones(),
            drawn_j=planned.plan.joules,
        )
        if evaluation is not None:
            report = report.model_copy(update=evaluation.reported())
        costs = round_costs(planned.priced, self.workload)
        return SimulatedRound(report, planned.plan, costs)

    def _announcement(self, round_: int, planned: SimulatedPlan) -> RoundPlanned:
        told = PlannedRound(planned.plan, {}, planned.changed, {})
        return RoundPlanned(plan_report(self._job, round_, told, barred={}), self._job.num_rounds)

    async def _train(
        self, round_: int, plan: Plan, traffic: Traffic, observers: Sequence[Observer]
    ) -> list[float]:
        """First parallel, then sequential: the clusters' turns, one after another."""
        losses: list[float] = []
        own = self.world.shards(plan.counts)
        believed = self._believed({device: len(shard.kept) for device, shard in own.items()})
        for index, planned in enumerate(plan.clusters):
            _tell(observers, ClusterStarted(round_, index, len(plan.clusters), planned.devices))
            await asyncio.sleep(0)  # Whoever wants to stop us is heard here.
            cuts = self._job.turn_cuts(round_, plan, planned)
            shards = self._shards_of(planned, own)
            first = self._first_samples(planned, shards)
            turn = self._model.turn(
                cut=cuts,
                round_=round_,
                learning_rate=self._job.server_rate(round_),
                aggregated=first.count if first else 0,
            )
            task = self._task(round_, index, planned, plan, believed)
            task = replace(task, aggregated=first)
            frozen = {cut: self._model.frozen(cut) for cut in cuts.in_order}
            cluster = InProcessCluster(shards, self._networks, task, traffic, frozen=frozen)
            edge = InlineEdge(turn, num_threads=self._job.settings.server_threads)
            if self._job.loss_on_device:
                losses += await train_locally(cluster, edge)
            elif planned.micro_batches > 1:
                losses += await train_overlapped(cluster, edge, local_epochs=self._job.local_epochs)
            else:
                losses += await train_cluster(cluster, edge, local_epochs=self._job.local_epochs)
        return losses

    def _first_samples(
        self, planned: ClusterPlan, shards: Mapping[str, Shard]
    ) -> FirstSamples | None:
        """What is aggregated over a cluster's devices; None if nothing is."""
        count = self._job.num_aggregated(planned, [each.num_drawn for each in shards.values()])
        size = self._job.settings.training.batch_size
        parts = planned.micro_batches
        return FirstSamples.of(count, micro_batches=parts, batch_size=size) if count else None

    def _believed(self, counts: Mapping[str, int]) -> Mapping[str, int]:
        """What numbers of samples count as, said of each device once, as real rounds do."""
        believed = believed_counts(counts)
        for device, why in doubts(counts, believed).items():
            if device not in self._doubted:
                self._doubted.add(device)
                log.warning("%s", why)
        return believed

    def _shards_of(self, planned: ClusterPlan, own: Mapping[str, Shard]) -> dict[str, Shard]:
        """The devices of a cluster, as they draw in this turn; there are networks for them."""
        while len(self._networks) < len(planned.devices):
            shape = self._job.shapes[0]
            self._networks.append(DeviceNetwork(self._job.assignment, sample_shape=shape))
        sizes = planned.batch_sizes or [None] * len(planned.devices)
        return {
            device: own[device].of_batches(size)
            for device, size in zip(planned.devices, sizes, strict=True)
        }

    def _task(
        self,
        round_: int,
        index: int,
        planned: ClusterPlan,
        plan: Plan,
        believed: Mapping[str, int],
    ) -> TurnTask:
        job, cuts = self._job, plan.cuts_of(planned)
        return TurnTask(
            first=StepId(job.assignment.run, round_, index, 0),
            cuts=cuts,
            parts=self._model.device_parts(cuts),
            local_epochs=job.local_epochs,
            learning_rate=job.device_rate(round_, len(planned.devices)),
            loss_on_device=job.loss_on_device,
            coder=TurnCoder(job.codecs_of(plan), seed=job.settings.seed, round_=round_),
            micro_batches=planned.micro_batches,
            clips=job.device_clips(planned),
            sample_counts={d: 1 if planned.batch_sizes else believed[d] for d in planned.devices},
        )

    def _evaluate(
        self, round_: int, plan: Plan, observers: Sequence[Observer]
    ) -> Evaluation | None:
        """Evaluate where the job says, if this round is one for it."""
        if not self._job.evaluates_in(round_):
            return None
        _tell(observers, Evaluating(round_))
        test = self._job.test
        if test is not None:
            return self._model.evaluate(test)
        shards = {d: shard for d, shard in self._at_start.items() if len(shard.held_out)}
        if not shards:
            return None
        smashed = {}
        cuts = {device: plan.cuts.get(device, plan.cut) for device in shards}
        for cut in set(cuts.values()):
            side = self._networks[0].open(cut)
            side.load_frozen(self._model.frozen(cut))
            side.load(self._model.turn(cut=cut, round_=round_, learning_rate=0.0).device_side())
            for device in (device for device in shards if cuts[device] == cut):
                x, y = shards[device].evaluation()
                smashed[device] = Smashed(side.predict(x), y)
        return self._model.evaluate_smashed(cuts, smashed)


def _tell(observers: Sequence[Observer], progress: Progress) -> None:
    for observer in observers:
        observer.tell(progress)
