"""The coordinator of a run: devices in, rounds of training, reports out."""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from edge_coordinator.devices.admission import Admission
from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.devices.stragglers import Stragglers
from edge_coordinator.job.job import Job
from edge_coordinator.job.labels import label_form
from edge_coordinator.job.standing import Standing
from edge_coordinator.planning.plan import Plan
from edge_coordinator.planning.unplanned import unpredicted
from edge_coordinator.replanning.corrections import TurnMeasured
from edge_coordinator.replanning.memory import RunMemory, TrustMemory
from edge_coordinator.replanning.planner import PlannedRound
from edge_coordinator.replanning.report import plan_report
from edge_coordinator.replanning.suspensions import Suspensions
from edge_coordinator.rounds.device_graphs import GraphExports
from edge_coordinator.rounds.evaluation import Evaluator
from edge_coordinator.rounds.planning import RoundPlanning
from edge_coordinator.rounds.recovery import Recovery
from edge_coordinator.rounds.report import round_report
from edge_coordinator.rounds.server_thread import EdgeWorker
from edge_coordinator.rounds.trained import Trained
from edge_coordinator.rounds.training import RoundTraining, Turns
from edge_coordinator.run.checkpoint import Reached, SavedProgress
from edge_coordinator.run.control import RunControl
from edge_coordinator.run.events import (
    ClassesAgreed,
    Observer,
    Progress,
    RoundDone,
    RoundPlanned,
    Stopped,
    Waiting,
)
from edge_coordinator.run.faults import Faults
from edge_coordinator.training.bounds import Bounds
from edge_coordinator.training.edge_model import EdgeModel
from runtime.errors import DivergedError, SettingsError
from runtime.wire.published import PlanReport, RoundReport

ALL_EXCLUDED_S = 10.0
"""How long others are waited for when all that are there are excluded."""


class Coordinator:
    """Runs a job with whatever devices are there."""

    def __init__(
        self,
        job: Job,
        model: EdgeModel,
        channel: DeviceChannel,
        planning: RoundPlanning,
        exports: GraphExports,
        *,
        observers: Sequence[Observer],
        progress: SavedProgress,
        memory: RunMemory,
        faults: Faults,
        control: RunControl,
    ) -> None:
        """`memory` is what the run knew when it was interrupted."""
        self._job = job
        self._model = model
        self._channel = channel
        self._planning = planning
        self._registry = channel.registry
        self._registry.labels = label_form(job)
        self._observers = observers
        self._progress = progress
        self._exports = exports
        self._faults = faults
        self._control = control
        self._turns = Turns(job, channel, exports)
        trust, rules = memory.trust, job.settings.devices
        past = (trust.largest, trust.cut, trust.own_cuts)
        self._bounds = Bounds(*past) if rules.bounds else None
        self._suspensions = Suspensions(rules.excluded_rounds, trust.suspensions)
        self._training = RoundTraining(job, model, self._turns, self._tell, bounds=self._bounds)
        self._evaluator = Evaluator(job, model, channel, self._turns, self._tell)
        self._recovery = Recovery(job, model, progress)
        self._standing = progress.reached.standing
        self._stragglers = Stragglers(memory.num_tries, memory.attendance)
        self.admission = Admission(job, channel, lambda what: self._tell(Waiting(what)))
        channel.answer_times.usual.update(memory.answer_times)

    async def run(self, worker: EdgeWorker) -> None:
        """Wait for the devices, train all rounds, and let the devices go."""
        await self._control.unless_stopped(self._until_there())
        self._started_s = time.monotonic() - self._progress.reached.elapsed_s
        round_, is_over = self._progress.reached.round + 1, False
        standing = self._standing
        while not is_over and await self._goes_on():
            report = await self._round(round_, worker)
            if report is None:
                await self._control.unless_stopped(self.admission.until_there(1, others_s=0.0))
                continue
            report, standing = await self._recovery.judged(report, standing, worker)
            self._standing = standing
            self._tell(RoundDone(report))
            memory = self._memory()
            await worker.do_whole(partial(self._save, report, memory, standing))
            is_over = bool(self._job.why_over(report, standing))
            self._control.round = round_
            round_ += 1
        await asyncio.gather(*(self._channel.stop(device) for device in self._registry.assigned))

    async def _until_there(self) -> None:
        await self.admission.until_there(self._job.settings.devices.count)
        if classes := await self.admission.agree_on_classes():
            self._tell(ClassesAgreed(classes))

    async def _goes_on(self) -> bool:
        """Do between rounds what was asked for from outside; whether there is to be another."""
        await self._control.until_continued(lambda what: self._tell(Waiting(what)))
        if self._control.take_replan():
            self._planning.replan()
        if self._control.is_stopping:
            self._tell(Stopped(self._control.stopped_by))
        return not self._control.is_stopping

    def _tell(self, progress: Progress) -> None:
        for observer in self._observers:
            with self._faults.gone_on_from("telling of the run", instead="it goes on untold"):
                observer.tell(progress)

    def _save(self, report: RoundReport, memory: RunMemory, standing: Standing) -> None:
        """Write down that a round is done; nothing else changes the memory meanwhile."""
        text = ""
        with self._faults.gone_on_from("writing down what was learned", instead="it is left out"):
            text = memory.encode()
        self._progress.save(self._model, Reached(report.round, report.elapsed_s, text, standing))

    def _memory(self) -> RunMemory:
        with self._faults.gone_on_from("writing down what was learned", instead="it is left out"):
            return RunMemory(
                answer_times=self._channel.answer_times.usual,
                num_tries=self._stragglers.num_tries,
                attendance=self._stragglers.records,
                planner=self._planning.remember(),
                trust=TrustMemory(
                    largest=self._bounds.largest if self._bounds else {},
                    cut=self._bounds.cut if self._bounds else None,
                    own_cuts=self._bounds.own_cuts if self._bounds else {},
                    suspensions=self._suspensions.records,
                ),
            )
        return RunMemory()

    # One round

    async def _round(self, round_: int, worker: EdgeWorker) -> RoundReport | None:
        """Plan, train and evaluate; None if the round has to be tried again."""
        dropped, newer = self._channel.dropped.counts.copy(), self._channel.inbound.newer
        unknown_fields = newer.unknown_fields.copy()
        planned = await self._planned(round_, worker)
        if planned is None or not await self._export(planned, worker):
            return None
        if not self._are_ready(planned.plan):
            return None  # Somebody left while graphs were exported.
        up, down = self._channel.inbound.up_bytes, self._channel.down_bytes
        start_s = time.monotonic()
        try:
            trained = await self._training.train(round_, planned, worker)
        except DivergedError as error:
            await self._recovery.after_divergence(error, self._standing, worker)
            return None
        self._note_late(planned.plan, trained)
        self._suspensions.note(round_, trained.caught)
        if trained.undone:
            self._tell(Waiting(trained.undone))
            return None
        round_s = time.monotonic() - start_s
        up, down = self._channel.inbound.up_bytes - up, self._channel.down_bytes - down
        evaluation, where = await self._evaluator.evaluate(
            round_, worker, plan=planned.plan, resting=planned.resting
        )
        report = await self._report(round_, planned, trained, round_s=round_s)
        return report.model_copy(
            update={
                **(evaluation.reported() if evaluation else {}),
                "evaluated_on": where,
                "elapsed_s": time.monotonic() - self._started_s,
                "up_bytes": up,
                "down_bytes": down,
                "dropped": self._channel.dropped.since(dropped),
                "unknown_fields": newer.since(unknown_fields),
                "faults": self._faults.new_ones(),
            }
        )

    async def _report(
        self, round_: int, planned: PlannedRound, trained: Trained, *, round_s: float
    ) -> RoundReport:
        """Learn from a round, and say what came of its training."""
        plan, turns, drawn_j = planned.plan, list[TurnMeasured](), dict[str, float]()
        with self._faults.gone_on_from("learning from a round", instead="nothing is learned"):
            turns = await self._planning.measured(round_, planned, trained.times)
            self._planning.learn(turns, trained.times, round_s=round_s)
            drawn_j = self._planning.drawn(turns, round_s=round_s)
        with self._faults.gone_on_from("reporting a round", instead="its seconds are left out"):
            report = round_report(self._job, round_, plan, trained, turns, round_s=round_s)
            return report.model_copy(update={"drawn_j": drawn_j})
        return round_report(self._job, round_, unpredicted(plan), trained, [], round_s=round_s)

    def _note_late(self, plan: Plan, trained: Trained) -> None:
        planned = {device for cluster in plan.clusters for device in cluster.devices}
        gone = trained.lost.keys() - trained.late.keys()  # They have shown nothing of their pace.
        self._stragglers.note(present=planned - gone, late=trained.late)
        with self._faults.gone_on_from("learning from a round", instead="nothing is learned"):
            self._planning.learn_late(plan, trained.late)

    async def _export(self, planned: PlannedRound, worker: EdgeWorker) -> bool:
        """Export the device side where somebody needs it; False if those had to be refused."""
        by_cut, devices = self._exports.devices_by_cut(planned.plan), list[str]()
        try:
            for cut, devices in by_cut.items():
                await self._exports.prepare(cut, worker, beside=by_cut, is_run=bool(devices))
        except SettingsError as error:
            if self._job.cut is None and not planned.is_exact:
                return False  # The next plan takes another.
            self._registry.refusals |= dict.fromkeys(devices, str(error))
            self._job.check_refusals(self._registry.refusals)
            if not self._registry.ready:
                raise
            return False
        return True

    def _are_ready(self, plan: Plan) -> bool:
        devices = (device for cluster in plan.clusters for device in cluster.devices)
        return all(self._registry.is_ready(device) for device in devices)

    async def _planned(self, round_: int, worker: EdgeWorker) -> PlannedRound | None:
        """Plan, and wait if nobody can take part; None if nobody is there."""
        while True:
            self._channel.learnt.clear()
            excluded = await self._excluded(round_)
            resting = excluded | self._stragglers.resting(self._registry.ready.keys() - excluded)
            planned = await self._planning.plan(round_, worker, resting=resting)
            if planned is not None and resting != excluded and not planned.plan.clusters:
                resting = excluded  # Only those that rest can train at all.
                planned = await self._planning.plan(round_, worker, resting=resting)
            if planned is None:
                return None
            if not self._are_ready(planned.plan):
                continue  # Somebody left while the plan was made.
            barred = self._registry.barred | resting | self._channel.busy
            planned, report = self._reported(round_, planned, barred)
            self._tell(RoundPlanned(report, self._job.num_rounds, planned.basis))
            if planned.plan.clusters:
                return replace(planned, resting=(*resting, *planned.resting))
            reasons = "; ".join(f"{device} {why}" for device, why in report.left_out.items())
            self._tell(Waiting(f"{planned.plan.reason}: {reasons}"))
            await self._channel.learnt.wait()

    async def _excluded(self, round_: int) -> dict[str, str]:
        """Who is out for what it sent; if all are, wait for others, and then give them a try."""
        excluded = self._suspensions.out(round_, self._registry.ready)
        if not excluded or len(excluded) < len(self._registry.ready):
            return excluded
        reasons = "; ".join(f"{device} {why}" for device, why in excluded.items())
        self._tell(Waiting(f"all devices are excluded: {reasons}"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ALL_EXCLUDED_S):
                while len(self._registry.ready) <= len(excluded):
                    self._channel.changed.clear()
                    await self._channel.changed.wait()
        ready = self._registry.ready
        excluded = self._suspensions.out(round_, ready)
        return excluded if len(excluded) < len(ready) else {}

    def _reported(
        self, round_: int, planned: PlannedRound, barred: Mapping[str, str]
    ) -> tuple[PlannedRound, PlanReport]:
        """Report a plan; what cannot be told of it counts for nothing in the round either."""
        with self._faults.gone_on_from("reporting a plan", instead="its seconds are left out"):
            return planned, plan_report(self._job, round_, planned, barred=barred)
        planned = replace(planned, plan=unpredicted(planned.plan))
        return planned, plan_report(self._job, round_, planned, barred=barred)
