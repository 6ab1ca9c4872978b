"""Evaluating the joint network: on the coordinator's test set, or on what the devices hold out."""

import logging

from edge_coordinator.conversation import Conversation
from edge_coordinator.edge_worker import EdgeWorker
from edge_coordinator.job import Job
from edge_coordinator.training.algorithm import ClusterLostError
from edge_coordinator.training.edge_model import EdgeModel, Evaluation
from edge_coordinator.turns import Turns

log = logging.getLogger(__name__)


class Evaluator:
    """Evaluates after a round, where the job says."""

    def __init__(
        self, job: Job, model: EdgeModel, conversation: Conversation, turns: Turns
    ) -> None:
        self._job = job
        self._model = model
        self._registry = conversation.registry
        self._turns = turns

    async def evaluate(
        self, round_: int, worker: EdgeWorker, *, cut: int
    ) -> tuple[Evaluation | None, str]:
        """Evaluate; None if no device could."""
        test = self._job.test
        if test is not None:
            return await worker.do(lambda: self._model.evaluate(test.x, test.y)), "coordinator"
        return await self._on_devices(round_, worker, cut=cut), "devices"

    async def _on_devices(self, round_: int, worker: EdgeWorker, *, cut: int) -> Evaluation | None:
        devices = [d for d, ready in self._registry.ready.items() if ready.num_held_out]
        if not devices:
            return None
        cluster = self._turns.evaluation(round_, devices, cut=cut)
        await cluster.join()
        turn = self._model.turn(cut=cut, round_=round_, learning_rate=0.0)
        try:
            await cluster.load(await worker.edge(turn).device_side())
            smashed = await cluster.forward()
        except ClusterLostError as error:
            log.warning("round %d could not be evaluated: %s", round_, error)
            return None
        return await worker.do(lambda: self._model.evaluate_smashed(cut, smashed))
