"""Checkpoints of a run: one a round, and back to one by itself when the run has been spoilt."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from math import isfinite

from edge_coordinator.job.job import Job
from edge_coordinator.job.standing import Standing
from edge_coordinator.replanning.memory import RunMemory
from edge_coordinator.rounds.server_thread import EdgeWorker
from edge_coordinator.run.checkpoint import Reached, SavedProgress
from edge_coordinator.run.faults import Faults
from edge_coordinator.training.edge_model import EdgeModel
from runtime.errors import DivergedError
from runtime.wire.published import RoundReport

log = logging.getLogger(__name__)


class Recovery:
    """Looks at each round's evaluation, writes the round down, and goes back to an older one."""

    def __init__(self, job: Job, model: EdgeModel, progress: SavedProgress, faults: Faults) -> None:
        self._job = job
        self._model = model
        self._progress = progress
        self._faults = faults
        self._standing = progress.reached.standing
        """What the evaluations said so far."""
        self._went_back_to: list[int] = []
        """Since the last round that was done."""

    @property
    def reached(self) -> Reached:
        """Where the run begins or goes on."""
        return self._progress.reached

    def is_over(self, report: RoundReport) -> bool:
        """Whether a round that was judged is the run's last."""
        return bool(self._job.why_over(report, self._standing))

    async def save(
        self, report: RoundReport, remember: Callable[[], RunMemory], worker: EdgeWorker
    ) -> None:
        """Write down that a round is done, with what the run has learned, if that can be."""
        memory = RunMemory()
        with self._learned_left_out():
            memory = remember()
        await worker.do_whole(partial(self._save, report, memory))

    def _save(self, report: RoundReport, memory: RunMemory) -> None:
        """Do it; nothing else changes the memory meanwhile."""
        text = ""
        with self._learned_left_out():
            text = memory.encode()
        reached = Reached(report.round, report.elapsed_s, text, self._standing)
        self._progress.save(self._model, reached)

    def _learned_left_out(self) -> AbstractContextManager[None]:
        return self._faults.gone_on_from("writing down what was learned", instead="it is left out")

    async def judged(self, report: RoundReport, worker: EdgeWorker) -> RoundReport:
        """Say of a round whether it is spoilt, and go back if the rules say so.

        DivergedError if it would have to and cannot: devices refuse to compute on such a model.
        """
        if (loss := report.test_loss) is not None:
            said = {"spoilt": self._standing.soundness.why_spoilt(loss)}
            names = ("test_loss", "test_accuracy", "test_metric")
            unsaid = {} if isfinite(loss) else dict.fromkeys(names)
            report = report.model_copy(update=said | unsaid)
        report = self._with_returns(report)
        after = self._job.standing_after(self._standing, report)
        if report.spoilt and self._is_due(after) and not self._job.why_over(report, after):
            log.warning("round %d is spoilt: %s", report.round, report.spoilt)
            if not await self._go_back(after, worker) and after.soundness.is_lost:
                raise DivergedError(
                    f"the loss is no longer finite in round {report.round}: training diverged; "
                    "take a lower training.server_optimizer.learning_rate"
                )
            report = self._with_returns(report)
            after = self._job.standing_after(self._standing, report)
        self._standing = after
        return report

    async def after_divergence(self, error: DivergedError, worker: EdgeWorker) -> None:
        """Go back if a round cannot be trained at all; the error if that cannot be."""
        log.warning("%s", error)
        if not await self._go_back(self._standing, worker):
            raise error

    def _is_due(self, standing: Standing) -> bool:
        most = self._job.settings.evaluation.spoilt_evaluations
        return standing.soundness.is_lost or standing.soundness.num_spoilt >= most

    async def _go_back(self, standing: Standing, worker: EdgeWorker) -> bool:
        most = self._job.settings.evaluation.most_returns
        if standing.soundness.num_returns + len(self._went_back_to) >= most:
            log.warning("the run has gone back %d times, and does not again", most)
            return False
        to = await worker.do(partial(self._progress.return_to_sound, self._model))
        if to is None:
            log.warning("there is no checkpoint of a sound round to go back to")
            return False
        self._went_back_to.append(to)
        log.warning("the run goes on from the weights of round %d", to)
        return True

    def _with_returns(self, report: RoundReport) -> RoundReport:
        went, self._went_back_to = (*report.went_back_to, *self._went_back_to), []
        return report.model_copy(update={"went_back_to": went})
