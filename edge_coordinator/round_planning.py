"""Planning as a part of a run: profiles in, a plan each round, what was measured back in."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial

from edge_coordinator.cluster import Late
from edge_coordinator.compute_survey import ComputeSurvey, cuts_to_measure
from edge_coordinator.conversation import Conversation
from edge_coordinator.device_states import is_complete
from edge_coordinator.edge_worker import EdgeWorker
from edge_coordinator.experience import TurnMeasured
from edge_coordinator.faults import Faults
from edge_coordinator.graph_exports import GraphExports
from edge_coordinator.job import Job, num_clusters
from edge_coordinator.metering import TurnTimes
from edge_coordinator.planner import PlannedRound, Planner, PlanningTask
from edge_coordinator.planning.deadline import predicted_answers
from edge_coordinator.planning.plan import InfeasiblePlanError, Plan
from edge_coordinator.planning.unplanned import as_before, dealt
from edge_coordinator.planning_task import make_task
from edge_coordinator.registry import DeviceRecord
from edge_coordinator.reports import measured_turns
from edge_coordinator.run_memory import PlannerMemory
from edge_coordinator.training.edge_model import EdgeModel
from runtime.errors import SettingsError
from runtime.published import DeviceMetrics

METRICS_PATIENCE_S = 1.0
"""How long a round waits for the last devices to say what it cost them."""

MeasureLink = Callable[[str], Awaitable[None]]
"""Measure a device's link, through the broker; its profile says what came of it."""


class RoundPlanning:
    """Plans the rounds of a job: by hand, or from what the devices measure of themselves."""

    def __init__(
        self,
        job: Job,
        model: EdgeModel,
        conversation: Conversation,
        exports: GraphExports,
        measure_link: MeasureLink,
        *,
        memory: PlannerMemory | None,
        faults: Faults,
    ) -> None:
        """`memory` is what the planner knew when the run was interrupted."""
        self._job = job
        self._model = model
        self._conversation = conversation
        self._exports = exports
        self._compute_survey = ComputeSurvey(conversation, exports)
        self._registry = conversation.registry
        self._measure_link = measure_link
        self._task: PlanningTask | None = None
        self._planner: Planner | None = None
        self._memory = memory
        self._faults = faults
        self._last = memory.before if memory is not None else None
        """The last plan that somebody could train by."""
        self._surveyed: dict[str, str] = {}
        """Device id to the session that was given the time to measure itself."""

    async def plan(
        self, round_: int, worker: EdgeWorker, *, resting: Collection[str]
    ) -> PlannedRound | None:
        """Plan a round for the devices that are ready and do not rest; None if there are none."""
        settings = self._job.settings.plan
        new = await self._measure_links()
        if settings.is_by_hand:
            ready = [device for device in self._registry.ready if device not in resting]
            return PlannedRound.by_hand(self._job.plan(ready)) if ready else None
        if not self._registry.ready:
            return None
        with self._faults.gone_on_from("planning", instead="rounds go on without a new plan"):
            planned = await self._planned(round_, worker, new, resting=resting)
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
        await self._until_complete(new, self._task)
        all_ready = self._ready_records()
        records = {device: all_ready[device] for device in all_ready if device not in resting}
        if not records:
            return None
        self._planner.limit(
            known_bytes=self._exports.needed_bytes if self._exports.devices else {},
            refused_cuts=self._exports.refused if self._exports.devices else {},
        )
        try:
            planned = await worker.do(partial(self._planner.plan, round_, records))
        except InfeasiblePlanError as error:
            if self._last is not None:
                raise  # Those who could train a round before may train the next as well.
            raise SettingsError(f"the devices cannot train this network: {error}") from error
        # What the next plan knows better; and the graphs are there when the round begins.
        await self._measure_compute(round_, worker, [planned.plan.cut])
        return planned

    def _unplanned(self, devices: Sequence[str]) -> PlannedRound | None:
        """Go on as in the round before, or by hand where that knows too little."""
        if not devices:
            return None
        refused = self._exports.refused if self._exports.devices else {}
        if self._last is not None and self._last.cut not in refused:
            reason = "as in the round before: planning went wrong"
            if (plan := as_before(self._last, devices, reason=reason)) is not None:
                return PlannedRound.by_hand(plan)
        given = self._job.cut if self._last is None else self._last.cut
        inner = range(1, max(len(self._job.layer_names), 2))
        cuts = [*inner] if given is None else [given, *inner]
        plan = dealt(
            devices,
            cut=next((cut for cut in cuts if cut not in refused), cuts[0]),
            num_clusters=num_clusters(self._job.settings, len(devices)),
            reason="neighbours by id: planning went wrong",
        )
        return PlannedRound.by_hand(plan)

    async def measured(
        self, round_: int, planned: PlannedRound, times: Sequence[TurnTimes]
    ) -> list[TurnMeasured]:
        """Put together what was measured of a round's turns, if they came to their ends."""
        if len(times) < len(planned.plan.clusters):
            return []
        devices = [device for turn in times for device in turn.devices]
        metrics = await self._metrics(round_, devices)
        return measured_turns(planned.plan, times, metrics, job=self._job)

    def learn(
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

    async def _measure_links(self) -> Sequence[str]:
        """Have new devices measure their links, once a session; which they are."""
        new = {
            device: record.status.session
            for device, record in self._ready_records().items()
            if self._surveyed.get(device) != record.status.session
        }
        self._surveyed |= new
        for device in new:  # One after another: they would measure each other.
            profile = self._registry.records[device].profile
            if profile is None or profile.link is None:
                await self._measure_link(device)
        return list(new)

    async def _measure_compute(self, round_: int, worker: EdgeWorker, cuts: Sequence[int]) -> None:
        """Have devices that run graphs time these cuts; refuse them if none can be exported."""
        assert self._task is not None
        task = self._task
        await self._compute_survey.measure(task.workload.cuts, worker, round_=round_, cuts=cuts)
        candidates, refused = task.candidate_cuts, self._exports.refused
        if candidates and all(cut in refused for cut in candidates):
            reason = refused[min(candidates)]
            self._registry.refusals |= dict.fromkeys(self._exports.devices, reason)
            self._job.check_refusals(self._registry.refusals)

    async def _until_complete(self, devices: Sequence[str], task: PlanningTask) -> None:
        """Give new devices a moment to publish all that they measure."""

        def are_complete() -> bool:
            records = (self._registry.records[device] for device in devices)
            return all(is_complete(each.profile, task.workload.cuts) for each in records)

        await self._until(are_complete, timeout_s=task.settings.profile_patience_s)

    async def _metrics(self, round_: int, devices: Sequence[str]) -> Mapping[str, DeviceMetrics]:
        """Collect what a round's devices say of it; not all may, in time."""

        def said() -> dict[str, DeviceMetrics]:
            records = ((device, self._registry.records[device].metrics) for device in devices)
            run = self._conversation.run
            return {
                device: metrics
                for device, metrics in records
                if metrics and (metrics.run, metrics.round) == (run, round_)
            }

        patience_s = METRICS_PATIENCE_S if self._planner else 0.0  # Only learning needs them.
        await self._until(lambda: len(said()) == len(devices), timeout_s=patience_s)
        return said()

    async def _until(self, is_true: Callable[[], bool], *, timeout_s: float) -> None:
        """Wait until something is known, or for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not is_true():
                    self._conversation.learnt.clear()
                    await self._conversation.learnt.wait()
