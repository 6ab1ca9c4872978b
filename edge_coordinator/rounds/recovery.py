"""Going back by itself when a run has been spoilt, so and so often at the most."""

import logging
from dataclasses import dataclass, field
from functools import partial
from math import isfinite

from edge_coordinator.job.job import Job
from edge_coordinator.job.standing import Standing
from edge_coordinator.rounds.server_thread import EdgeWorker
from edge_coordinator.run.checkpoint import SavedProgress
from edge_coordinator.training.edge_model import EdgeModel
from runtime.errors import DivergedError
from runtime.wire.published import RoundReport

log = logging.getLogger(__name__)


@dataclass
class Recovery:
    """Looks at each round's evaluation, and puts an older checkpoint into the model."""

    job: Job
    model: EdgeModel
    progress: SavedProgress
    went_back_to: list[int] = field(default_factory=list)
    """Since the last round that was done."""

    async def judged(
        self, report: RoundReport, standing: Standing, worker: EdgeWorker
    ) -> tuple[RoundReport, Standing]:
        """Say of a round whether it is spoilt, and go back if the rules say so.

        DivergedError if it would have to and cannot: devices refuse to compute on such a model.
        """
        if (loss := report.test_loss) is not None:
            said = {"spoilt": standing.soundness.why_spoilt(loss)}
            names = ("test_loss", "test_accuracy", "test_metric")
            unsaid = {} if isfinite(loss) else dict.fromkeys(names)
            report = report.model_copy(update=said | unsaid)
        report = self._with_returns(report)
        after = self.job.standing_after(standing, report)
        if report.spoilt and self._is_due(after) and not self.job.why_over(report, after):
            log.warning("round %d is spoilt: %s", report.round, report.spoilt)
            if not await self._go_back(after, worker) and after.soundness.is_lost:
                raise DivergedError(
                    f"the loss is no longer finite in round {report.round}: training diverged; "
                    "take a lower training.server_optimizer.learning_rate"
                )
            report = self._with_returns(report)
            after = self.job.standing_after(standing, report)
        return report, after

    async def after_divergence(
        self, error: DivergedError, standing: Standing, worker: EdgeWorker
    ) -> None:
        """Go back if a round cannot be trained at all; the error if that cannot be."""
        log.warning("%s", error)
        if not await self._go_back(standing, worker):
            raise error

    def _is_due(self, standing: Standing) -> bool:
        most = self.job.settings.evaluation.spoilt_evaluations
        return standing.soundness.is_lost or standing.soundness.num_spoilt >= most

    async def _go_back(self, standing: Standing, worker: EdgeWorker) -> bool:
        most = self.job.settings.evaluation.most_returns
        if standing.soundness.num_returns + len(self.went_back_to) >= most:
            log.warning("the run has gone back %d times, and does not again", most)
            return False
        to = await worker.do(partial(self.progress.return_to_sound, self.model))
        if to is None:
            log.warning("there is no checkpoint of a sound round to go back to")
            return False
        self.went_back_to.append(to)
        log.warning("the run goes on from the weights of round %d", to)
        return True

    def _with_returns(self, report: RoundReport) -> RoundReport:
        went, self.went_back_to = (*report.went_back_to, *self.went_back_to), []
        return report.model_copy(update={"went_back_to": went})
