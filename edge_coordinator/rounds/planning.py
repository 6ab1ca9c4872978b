"""Planning as a part of a run: profiles in, a plan each round, what was measured back in."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf

from edge_coordinator.devices.deadlines import predicted_answers
from edge_coordinator.devices.registry import DeviceRecord
from edge_coordinator.job.given_plans import num_clusters
from edge_coordinator.job.job import Job
from edge_coordinator.planning.plan import InfeasiblePlanError, Plan
from edge_coordinator.planning.unplanned import as_before, dealt
from edge_coordinator.replanning.corrections import TurnMeasured
from edge_coordinator.replanning.energy import drawn_joules
from edge_coordinator.replanning.memory import PlannerMemory
from edge_coordinator.replanning.planner import PlannedRound, Planner, PlanningTask
from edge_coordinator.replanning.task import make_task
from edge_coordinator.rounds.device_graphs import GraphExports
from edge_coordinator.rounds.device_survey import DeviceSurvey, cuts_to_measure
from edge_coordinator.rounds.members import Late
from edge_coordinator.rounds.report import measured_turns
from edge_coordinator.rounds.server_thread import EdgeWorker
from edge_coordinator.rounds.trained import TurnTimes
from edge_coordinator.run.faults import Faults
from edge_coordinator.training.edge_model import EdgeModel
from runtime.errors import CannotTrainError, SettingsError

METRICS_PATIENCE_S = 1.0
"""How long a round waits for the last devices to say what it cost them."""


class RoundPlanning:
    """Plans the rounds of a job: as given, or from what the devices measure of themselves."""

    def __init__(
        self,
        job: Job,
        model: EdgeModel,
        exports: GraphExports,
        survey: DeviceSurvey,
        *,
        memory: PlannerMemory | None,
        faults: Faults,
    ) -> None:
        """`memory` is what the planner knew when the run was interrupted."""
        self._job = job
        self._model = model
        self._exports = exports
        self._survey = survey
        self._registry = survey.registry
        self._task: PlanningTask | None = None
        self._planner: Planner | None = None
        self._memory = memory
        self._first_round = inf
        self._faults = faults
        self._last = memory.before if memory is not None else None
        """The last plan that somebody could train by."""

    async def plan(
        self, round_: int, worker: EdgeWorker, *, resting: Collection[str]
    ) -> PlannedRound | None:
        """Plan a round for the devices that are ready and do not rest; None if there are none.

        The plan says how many samples those train on whose data grow; a replayed one said it.
        """
        grown = self._registry.take_growth()
        planned = await self._any_plan(round_, worker, resting=resting)
        if planned is None or planned.is_exact or not grown:
            return planned
        return replace(planned, plan=planned.plan.with_samples(grown))

    async def _any_plan(
        self, round_: int, worker: EdgeWorker, *, resting: Collection[str]
    ) -> PlannedRound | None:
        given = self._job.given_plans
        if given is not None:
            self._survey_for_watchers(round_)
            ready = [device for device in self._registry.ready if device not in resting]
            plan = given.plan(round_, ready) if ready else None
            return PlannedRound.given(plan, is_exact=given.is_exact) if plan else None
        if not self._registry.ready:
            return None
        with self._faults.gone_on_from("planning", instead="rounds go on without a new plan"):
            planned = await self._planned(round_, worker, self._survey.begin(), resting=resting)
            if planned is not None and planned.plan.clusters:
                self._last = planned.plan
            return planned
        return self._unplanned([each for each in self._registry.ready if each not in resting])

    async def _planned(
        self, round_: int, worker: EdgeWorker, new: Sequence[str], *, resting: Collection[str]
    ) -> PlannedRound | None:
        """Plan a round by what the devices measure of themselves."""
        if self._planner is None or self._task is None:
            self._task = await worker.do(self._make_task)
            self._planner = Planner(self._task)
            if self._memory is not None:
                self._planner.recall(self._memory)
        first_cuts = cuts_to_measure(self._task.workload.cuts, self._task.candidate_cuts)
        await self._measure_compute(round_, worker, first_cuts)
        await self._survey.until_complete(
            new, self._task.workload.cuts, patience_s=self._task.settings.profile_patience_s
        )
        all_ready = self._ready_records()
        records = {device: all_ready[device] for device in all_ready if device not in resting}
        if not records:
            return None
        try:
            planned = await self._plan_by(round_, worker, self._planner, records)
        except InfeasiblePlanError as error:
            if self._last is not None:
                raise  # Those who could train a round before may train the next as well.
            raise CannotTrainError(f"the devices cannot train this network: {error}") from error
        # What the next plan knows better; and the graphs are there when the round begins.
        cuts, clusters = {planned.plan.cut, *planned.plan.cuts.values()}, planned.plan.clusters
        await self._measure_compute(round_, worker, sorted(cuts))
        if cuts & self._exports.fixed and any(cluster.batch_sizes for cluster in clusters):
            again = await self._plan_by(round_, worker, self._planner, records)
            return replace(again, changed=planned.changed)
        return planned

    async def _plan_by(
        self,
        round_: int,
        worker: EdgeWorker,
        planner: Planner,
        records: Mapping[str, DeviceRecord],
    ) -> PlannedRound:
        """Plan a round by what is known now of the graphs."""
        has_graphs = bool(self._exports.devices)
        planner.limit(
            known_bytes=self._exports.needed_bytes if has_graphs else {},
            refused_cuts=self._exports.refused if has_graphs else {},
            fixed_cuts=self._exports.fixed if has_graphs else (),
        )
        return await worker.do(partial(planner.plan, round_, records))

    def _unplanned(self, devices: Sequence[str]) -> PlannedRound | None:
        """Go on as in the round before, or by hand where that knows too little."""
        if not devices:
            return None
        refused = self._exports.refused if self._exports.devices else {}
        if self._last is not None and self._last.cut not in refused:
            reason = "as in the round before: planning went wrong"
            if (plan := as_before(self._last, devices, reason=reason)) is not None:
                return PlannedRound.given(plan, is_exact=False)
        given = self._job.cut if self._last is None else self._last.cut
        inner = range(1, max(len(self._job.layer_names), 2))
        cuts = [*inner] if given is None else [given, *inner]
        plan = dealt(
            devices,
            cut=next((cut for cut in cuts if cut not in refused), cuts[0]),
            num_clusters=num_clusters(self._job.settings, len(devices)),
            reason="neighbours by id: planning went wrong",
        )
        return PlannedRound.given(plan, is_exact=False)

    def replan(self) -> None:
        """Choose the cut anew for the next round, if it is not given."""
        if self._planner is not None:
            self._planner.choose_anew("the cut is chosen again because somebody asked for it")

    async def export(self, planned: PlannedRound, worker: EdgeWorker) -> bool:
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

    async def learn(
        self, round_: int, planned: PlannedRound, times: Sequence[TurnTimes], *, round_s: float
    ) -> tuple[list[TurnMeasured], dict[str, float]]:
        """Learn from a round: what was measured of its turns, and the joules of each device."""
        turns, drawn_j = list[TurnMeasured](), dict[str, float]()
        with self._faults.gone_on_from("learning from a round", instead="nothing is learned"):
            turns = await self._measured(round_, planned, times)
            self._learn(turns, times, round_s=round_s)
            drawn_j = self._drawn(turns, round_s=round_s)
        return turns, drawn_j

    async def _measured(
        self, round_: int, planned: PlannedRound, times: Sequence[TurnTimes]
    ) -> list[TurnMeasured]:
        """Put together what was measured of a round's turns, if they came to their ends."""
        if len(times) < len(planned.plan.clusters):
            return []
        devices = [device for turn in times for device in turn.devices]
        patience_s = METRICS_PATIENCE_S if self._planner else 0.0  # Only learning needs them.
        metrics = await self._survey.metrics(round_, devices, patience_s=patience_s)
        return measured_turns(planned.plan, times, metrics, job=self._job)

    def _drawn(self, turns: Sequence[TurnMeasured], *, round_s: float) -> dict[str, float]:
        """Joules of each device in a round; budgets hear of them."""
        joules = drawn_joules(self._job, self._registry, turns, round_s=round_s)
        if self._planner is not None:
            self._planner.note_energy(joules)
        return joules

    def _learn(
        self, turns: Sequence[TurnMeasured], times: Sequence[TurnTimes], *, round_s: float
    ) -> None:
        """Learn from the turns of a round that nobody was lost in."""
        whole = [
            turn
            for turn, time in zip(turns, times, strict=False)
            if turn.plan.phases and len(time.devices) == len(turn.plan.devices)
        ]
        if self._planner is None or not whole:
            return
        beyond_s = round_s - sum(time.turn_s for time in times)
        self._planner.learn(whole, beyond_turns_s=beyond_s if len(whole) == len(times) else None)

    def learn_late(self, plan: Plan, late: Mapping[str, Late]) -> None:
        """Learn from a round that some devices were late in."""
        with self._faults.gone_on_from("learning from a round", instead="nothing is learned"):
            self._learn_late(plan, late)

    def _learn_late(self, plan: Plan, late: Mapping[str, Late]) -> None:
        if self._planner is None:
            return
        for cluster in plan.clusters:
            for device, phases in zip(cluster.devices, cluster.phases, strict=False):
                answers = predicted_answers(phases, local_epochs=self._job.local_epochs)
                if device in late and late[device].answer in answers:
                    self._planner.learn_late(
                        device,
                        cluster,
                        answer_s=answers[late[device].answer],
                        late_s=late[device].waited_s,
                    )

    def remember(self) -> PlannerMemory | None:
        """Give what a checkpoint keeps."""
        return self._planner.remember() if self._planner is not None else self._memory

    def _make_task(self) -> PlanningTask:
        ready = self._registry.ready
        one = next(iter(ready.values()))
        return make_task(self._job, self._model, ready=one, num_devices=len(ready))

    def _ready_records(self) -> Mapping[str, DeviceRecord]:
        return {device: self._registry.records[device] for device in self._registry.ready}

    def _survey_for_watchers(self, round_: int) -> None:
        """Have links measured while a plan that needs none is trained, from its second round on."""
        self._first_round = min(self._first_round, round_)
        if round_ > self._first_round:
            self._survey.begin()

    async def _measure_compute(self, round_: int, worker: EdgeWorker, cuts: Sequence[int]) -> None:
        """Have devices that run graphs time these cuts; refuse them if none can be exported."""
        assert self._task is not None
        task = self._task
        await self._survey.compute(task.workload.cuts, worker, round_=round_, cuts=cuts)
        candidates, refused = task.candidate_cuts, self._exports.refused
        if candidates and all(cut in refused for cut in candidates):
            reason = refused[min(candidates)]
            self._registry.refusals |= dict.fromkeys(self._exports.devices, reason)
            self._job.check_refusals(self._registry.refusals)
