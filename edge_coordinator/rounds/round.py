"""One round after the other, each from its plan to its report."""

import time
from dataclasses import replace

from edge_coordinator.replanning.participation import Participation
from edge_coordinator.replanning.planner import PlannedRound
from edge_coordinator.rounds.evaluation import Evaluator
from edge_coordinator.rounds.planning import RoundPlanning
from edge_coordinator.rounds.report import Reporting
from edge_coordinator.rounds.server_thread import EdgeWorker
from edge_coordinator.rounds.training import RoundTraining
from runtime.wire.published import RoundReport


class TrainingRounds:
    """Plans, trains and evaluates a round with whoever takes part in it."""

    def __init__(
        self,
        participation: Participation,
        planning: RoundPlanning,
        training: RoundTraining,
        evaluator: Evaluator,
        reporting: Reporting,
    ) -> None:
        self._participation = participation
        self._planning = planning
        self._training = training
        self._evaluator = evaluator
        self._reporting = reporting

    async def run(self, round_: int, worker: EdgeWorker) -> RoundReport | None:
        """Plan, train and evaluate; None if the round has to be tried again.

        DivergedError if the model has become such that it cannot be trained.
        """
        traffic = self._reporting.traffic()
        planned = await self._planned(round_, worker)
        if planned is None or not await self._planning.export(planned, worker):
            return None
        plan = planned.plan
        if not self._participation.are_ready(plan):
            return None  # Somebody left while graphs were exported.
        traffic.begin_training()
        start_s = time.monotonic()
        trained = await self._training.train(round_, planned, worker)
        self._participation.note(
            round_, plan, lost=trained.lost, late=trained.late, caught=trained.caught
        )
        self._planning.learn_late(plan, trained.late)
        if trained.undone:
            self._reporting.say(trained.undone)
            return None
        round_s = time.monotonic() - start_s
        traffic.end_training()
        evaluation, where = await self._evaluator.evaluate(
            round_, worker, plan=plan, resting=planned.resting
        )
        turns, drawn_j = await self._planning.learn(round_, planned, trained.times, round_s=round_s)
        report = self._reporting.round(round_, plan, trained, turns, drawn_j, round_s=round_s)
        return report.model_copy(
            update={
                **(evaluation.reported() if evaluation else {}),
                "evaluated_on": where,
                **traffic.reported(),
                "faults": self._reporting.new_faults(),
            }
        )

    async def _planned(self, round_: int, worker: EdgeWorker) -> PlannedRound | None:
        """Plan, and wait if nobody can take part; None if nobody is there."""
        while True:
            self._participation.learnt.clear()
            excluded = await self._participation.excluded(round_)
            resting = excluded | self._participation.resting(excluded)
            planned = await self._planning.plan(round_, worker, resting=resting)
            if planned is not None and resting != excluded and not planned.plan.clusters:
                resting = excluded  # Only those that rest can train at all.
                planned = await self._planning.plan(round_, worker, resting=resting)
            if planned is None:
                return None
            if not self._participation.are_ready(planned.plan):
                continue  # Somebody left while the plan was made.
            barred = self._participation.barred(resting)
            planned, report = self._reporting.plan(round_, planned, barred)
            if planned.plan.clusters:
                return replace(planned, resting=(*resting, *planned.resting))
            reasons = "; ".join(f"{device} {why}" for device, why in report.left_out.items())
            self._reporting.say(f"{planned.plan.reason}: {reasons}")
            await self._participation.learnt.wait()
