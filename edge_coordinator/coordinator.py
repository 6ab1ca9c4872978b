"""The coordinator of a run: devices in, rounds of training, reports out."""

import time

from edge_coordinator.replanning.memory import RunMemory
from edge_coordinator.replanning.participation import Participation
from edge_coordinator.rounds.planning import RoundPlanning
from edge_coordinator.rounds.recovery import Recovery
from edge_coordinator.rounds.report import Reporting
from edge_coordinator.rounds.round import TrainingRounds
from edge_coordinator.rounds.server_thread import EdgeWorker
from edge_coordinator.run.control import RunControl
from edge_coordinator.run.events import ClassesAgreed, RoundDone, Stopped
from runtime.errors import DivergedError
from runtime.wire.published import RoundReport


class Coordinator:
    """Runs a job with whatever devices are there."""

    def __init__(
        self,
        participation: Participation,
        planning: RoundPlanning,
        rounds: TrainingRounds,
        recovery: Recovery,
        reporting: Reporting,
        *,
        control: RunControl,
    ) -> None:
        self._participation = participation
        self._planning = planning
        self._rounds = rounds
        self._recovery = recovery
        self._reporting = reporting
        self._control = control

    async def run(self, worker: EdgeWorker) -> None:
        """Wait for the devices, train all rounds, and let the devices go."""
        await self._control.unless_stopped(self._until_there())
        reached = self._recovery.reached
        started_s = time.monotonic() - reached.elapsed_s
        round_, is_over = reached.round + 1, False
        while not is_over and await self._goes_on():
            report = await self._round(round_, worker)
            if report is None:
                await self._control.unless_stopped(self._participation.until_anyone())
                continue
            report = report.model_copy(update={"elapsed_s": time.monotonic() - started_s})
            report = await self._recovery.judged(report, worker)
            self._reporting.tell(RoundDone(report))
            await self._recovery.save(report, self._remember, worker)
            is_over = self._recovery.is_over(report)
            self._control.round = round_
            round_ += 1
        await self._participation.let_go()

    async def admit(self) -> None:
        """Admit whoever comes, until cancelled."""
        await self._participation.admit()

    async def _until_there(self) -> None:
        if classes := await self._participation.until_enough():
            self._reporting.tell(ClassesAgreed(classes))

    async def _goes_on(self) -> bool:
        """Do between rounds what was asked for from outside; whether there is to be another."""
        await self._control.until_continued(self._reporting.say)
        if self._control.take_replan():
            self._planning.replan()
        if self._control.is_stopping:
            self._reporting.tell(Stopped(self._control.stopped_by))
        return not self._control.is_stopping

    async def _round(self, round_: int, worker: EdgeWorker) -> RoundReport | None:
        """Run a round, or go back if it cannot be trained; None if it has to be tried again."""
        try:
            return await self._rounds.run(round_, worker)
        except DivergedError as error:
            await self._recovery.after_divergence(error, worker)
            return None

    def _remember(self) -> RunMemory:
        return self._participation.remember(self._planning.remember())
