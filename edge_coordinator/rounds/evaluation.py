"""Evaluating the joint network: on the coordinator's test set, or on what the devices hold out."""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from math import isfinite

from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.job.job import Job
from edge_coordinator.planning.plan import Plan
from edge_coordinator.rounds.recorded_turn import record_turn
from edge_coordinator.rounds.server_thread import EdgeWorker
from edge_coordinator.rounds.training import Turns
from edge_coordinator.run.events import Evaluating, Progress
from edge_coordinator.training.algorithm import ClusterLostError, Smashed
from edge_coordinator.training.bounds import Bounds, Sent, sample_size
from edge_coordinator.training.culprits import culprits
from edge_coordinator.training.edge_model import EdgeModel
from edge_coordinator.training.evaluation import Evaluation
from runtime.errors import SettingsError

log = logging.getLogger(__name__)


class Evaluator:
    """Evaluates after a round, where the job says."""

    def __init__(
        self,
        job: Job,
        model: EdgeModel,
        channel: DeviceChannel,
        turns: Turns,
        tell: Callable[[Progress], None],
    ) -> None:
        self._job = job
        self._tell = tell
        self._model = model
        self._registry = channel.registry
        self._turns = turns

    async def evaluate(
        self, round_: int, worker: EdgeWorker, *, plan: Plan, resting: Collection[str]
    ) -> tuple[Evaluation | None, str | None]:
        """Evaluate, if this round is one for it; None if it is not, or no device could."""
        if not self._job.evaluates_in(round_):
            return None, None
        self._tell(Evaluating(round_))
        test = self._job.test
        if test is not None:
            return await worker.do(lambda: self._model.evaluate(test)), "coordinator"
        ready = self._registry.ready
        devices = [d for d in ready if ready[d].num_held_out and d not in resting]
        cuts = {device: plan.cuts.get(device, plan.cut) for device in devices}
        return await self._on_devices(round_, cuts, worker), "devices"

    async def _on_devices(
        self, round_: int, cuts: Mapping[str, int], worker: EdgeWorker
    ) -> Evaluation | None:
        if not cuts:
            return None
        start_s, cluster = time.monotonic(), self._turns.evaluation(round_, cuts)
        await cluster.join()
        turn = self._model.turn(cut=max(cuts.values()), round_=round_, learning_rate=0.0)
        try:
            await cluster.load(await worker.edge(turn).device_side())
            smashed = await cluster.forward()
            record_turn(cluster, None, since_s=start_s, name="evaluation")
        except ClusterLostError as error:
            log.warning("round %d could not be evaluated: %s", round_, error)
            return None
        return await worker.do(lambda: self._evaluate_smashed(round_, cuts, smashed))

    def _evaluate_smashed(
        self, round_: int, cuts: Mapping[str, int], smashed: Mapping[str, Smashed]
    ) -> Evaluation:
        """Evaluate on what devices sent, without those that make an evaluation impossible."""
        sizes = {device: sample_size(own.data) for device, own in smashed.items()}
        out = (
            Bounds({}, None, cuts).check(Sent.SMASHED, sizes)
            if self._job.settings.devices.bounds
            else {}
        )
        kept = {device: own for device, own in smashed.items() if device not in out}
        try:
            evaluation = self._model.evaluate_smashed(cuts, kept)
        except (RuntimeError, ValueError, TypeError, IndexError, SettingsError):
            evaluation = None
        if evaluation is None or not isfinite(evaluation.loss):
            found = culprits(kept, lambda own: self._model.evaluate_smashed(cuts, own).loss)
            out |= found
            kept = {device: own for device, own in kept.items() if device not in found}
            evaluation = self._model.evaluate_smashed(cuts, kept)
        for device, what in out.items():
            log.warning("round %d is evaluated without %s: it %s", round_, device, what)
        return evaluation
