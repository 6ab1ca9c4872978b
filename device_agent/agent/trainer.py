"""The work of one device: what the session asks for, done with an engine and a shard.

Everything here computes; the agent runs it in a thread, one piece at a time.
"""

import logging
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.agent.frozen import missing_of_frozen
from device_agent.agent.own_data import OwnData
from device_agent.agent.recorded_work import record_work
from device_agent.engines.compute_timings import ComputeTimings
from device_agent.engines.engine import Engine, Executor
from device_agent.engines.graph_check import check_graphs
from device_agent.engines.measurement import Measurement
from device_agent.engines.numpy_training import load_loss
from device_agent.engines.timing import COMPUTE_PROBE_S
from device_agent.limits import check_cut
from runtime.datasets.samples import Samples
from runtime.datasets.shard import Shard
from runtime.errors import SettingsError
from runtime.local_training import check_finite, train_locally
from runtime.protocol.events import (
    BackwardDone,
    CollectWeights,
    ForwardDone,
    GraphsMissing,
    LoadModel,
    PassOpened,
    Predict,
    Prepared,
    RunBackward,
    RunForward,
    TrainLocally,
    WeightsCollected,
    Work,
)
from runtime.wire.codecs.offered import choice_of
from runtime.wire.codecs.turn import TurnCoder, whole_gradient
from runtime.wire.commands import Assignment, FrozenOffer, GraphsOffer, Join
from runtime.wire.device_graphs import read_graphs, unpack_frozen
from runtime.wire.frames import FrameKind, StepId, Tensor
from runtime.wire.measures import ComputeProfile
from runtime.wire.micro_batches import FirstSamples, Rows, gradient_rows, parted

log = logging.getLogger(__name__)

MEASURED_CUTS = 3
"""Cuts that a coordinator has measured of an engine that runs graphs, more or less."""

Result = ForwardDone | BackwardDone | WeightsCollected

BuildEngine = Callable[[Assignment, tuple[int, ...]], Engine]


class Trainer:
    """One device's data, engine and executor."""

    def __init__(
        self,
        device: str,
        samples: Samples | OwnData,
        build_engine: BuildEngine,
        *,
        probe_s: float = COMPUTE_PROBE_S,
        min_cut: str = "",
        threads: Callable[[], int] | None = None,
    ) -> None:
        """`min_cut` is the last of the layers that run here at least, or their number.

        `threads` says at each turn how many the arithmetic takes; without, they stay as they are.
        """
        self._device = device
        self._data = samples if isinstance(samples, OwnData) else OwnData(device, samples)
        self._build_engine = build_engine
        self._probe_s = probe_s
        self._min_cut = min_cut
        self.wanted_min_cut = ""
        """The same by topic; the later of the two holds."""
        self._threads = threads
        self._complete: Executor | None = None
        """Which executor has the right parameters among those that do not learn."""
        self.forward_s = self.backward_s = 0.0

    def prepare(self, assignment: Assignment) -> Prepared:
        """Split the data and build the network of a job."""
        shape = self._data.samples.sample_shape
        self.assignment = assignment
        for name in assignment.codecs or ():
            choice_of(name)  # Better refused now than in the midst of a round.
        ready = self._data.prepare(assignment)
        self._shard: Shard = self._data.told
        # All but how this device's run ends is said to all: what one measures, others need not.
        of_all = assignment.model_copy(update={"stop_digest": None})
        self._engine = self._build_engine(of_all, shape)
        self._engine.check(shape)
        deepest = assignment.deepest_cut
        self._check_cut("the job cuts at the latest", np.inf if deepest is None else deepest)
        return Prepared(ready)

    def measurement(self, join: Join | None = None) -> Measurement[Any] | None:
        """What to measure of the job's network: all of it, or what a turn asks to be measured.

        None where nothing can be measured before there are graphs.
        """
        batch = self._probe_batch()
        if join is None:
            return self._engine.measure_layers(batch, budget_s=self._probe_s, clock=perf_counter)
        return self._engine.measure_cut(
            join.cut,
            join.layers,
            batch,
            digest=join.graphs.digest if join.graphs else "",
            budget_s=self._probe_s / MEASURED_CUTS,
            clock=perf_counter,
        )

    def published(self, timings: ComputeTimings) -> ComputeProfile:
        """Put what was measured of the job's network into what is published."""
        size = len(self._probe_batch())
        return timings.profile(network=self.assignment.network[:64], batch_size=size)

    def _probe_batch(self) -> NDArray[np.float32]:
        return self._shard.batch(self.assignment.batch_size)

    def open(self, join: Join) -> PassOpened | GraphsMissing:
        """Cut the network for a cluster's turn, if all that it takes is here."""
        if join.purpose != "measure":
            self._check_cut("the coordinator cuts", join.cut)
        if self._threads is not None:
            self._engine.use_threads(self._threads())
        if not self._find_graphs(join):
            assert join.graphs is not None
            return GraphsMissing(join, join.graphs)
        if join.purpose == "measure":
            return PassOpened(join, (), ())
        self._join = join
        self._executor: Executor = self._engine.open(join.cut)
        if self._executor is not self._complete:
            if (frozen := missing_of_frozen(self._executor, join)) is not None:
                return GraphsMissing(join, frozen)
            self._complete = self._executor
        self.forward_s = self.backward_s = 0.0
        self._coder = TurnCoder(join.codecs, seed=self.assignment.seed, round_=join.round)
        self._received: tuple[Tensor, ...] = ()
        self._model = model = self._executor.model_specs()
        has_gradient = self._executor.learns and join.purpose == "train"
        self._shard = self._data.of_turn(join)
        if self._shard.num_drawn > self.assignment.batch_size:
            self._engine.check_batch(join.cut, self._shard.num_drawn)
        self._rows = self._parted(join, self._shard.num_drawn)
        # In micro-batches each has a gradient of its own, whoever else is given it.
        is_whole = has_gradient and join.micro_batches is None
        parts = gradient_rows(self._rows, join.aggregated if is_whole else None)
        self._gradients = [self._executor.smashed_spec(len(rows)) for rows in parts]
        gradient, *more_gradients = (
            self._coder.specs(FrameKind.GRADIENT, (part,) if has_gradient else ())
            for part in self._gradients
        )
        return PassOpened(
            join, self._coder.specs(FrameKind.MODEL, model), gradient, tuple(more_gradients)
        )

    def _parted(self, join: Join, num_samples: int) -> tuple[Rows, ...]:
        """Part a mini-batch as a turn has it."""
        parts, count, size = join.micro_batches or 1, join.aggregated, self.assignment.batch_size
        if parts == 1 or count is None:
            return parted(num_samples, parts)
        first = FirstSamples.of(count, micro_batches=parts, batch_size=size)
        return parted(num_samples, parts, first)

    def _check_cut(self, who: str, cut: float) -> None:
        """Keep what would leave this device too early; the owner's word goes before a plan's."""
        cut_of = self._engine.cut_of
        check_cut(who, cut, owners=self._min_cut, wanted=self.wanted_min_cut, cut_of=cut_of)

    def take(
        self, join: Join, offer: GraphsOffer | FrozenOffer, tensors: Sequence[Tensor]
    ) -> PassOpened | GraphsMissing:
        """Check what the coordinator sent before anything of it runs, keep it, and open."""
        if isinstance(offer, GraphsOffer):
            self._take_graphs(offer, tensors)
        else:
            self._executor.load_frozen(unpack_frozen(tensors[0], self._executor.frozen()))
        opened = self.open(join)
        if isinstance(opened, GraphsMissing) and opened.offer == offer:
            log.warning("%s got something else than it was offered", self._device)
        return opened

    def _take_graphs(self, offer: GraphsOffer, tensors: Sequence[Tensor]) -> None:
        store, graphs = self._engine.graphs, read_graphs(offer, tensors)
        assert store is not None
        if graphs is not None:
            check_graphs(graphs)
            store.keep(offer.digest, graphs)

    def _find_graphs(self, join: Join) -> bool:
        """Have the engine use the graphs that were offered; False if they must be sent first."""
        store = self._engine.graphs
        if store is None or join.cut == 0:
            return True
        if join.purpose == "train_locally":
            load_loss(self.assignment.loss)  # Better refused now than in the midst of a round.
        if join.graphs is None:
            raise SettingsError(
                "this device runs on onnxruntime, and the coordinator offers no graphs; it needs a "
                "newer coordinator, or --engine torch here"
            )
        return store.use(join.graphs.digest)

    def run(self, work: Sequence[Work]) -> Result:
        """Do one command after the other; the result of the last."""
        result: Result | None = None
        for command in work:
            start_s = perf_counter()
            result = self._run_one(command)
            record_work(self._device, command, since_s=start_s)
        assert result is not None, f"work without a result: {work}"
        return result

    def _run_one(self, command: Work) -> Result | None:
        match command:
            case LoadModel(tensors):
                self._received = self._coder.decode(FrameKind.MODEL, tensors, self._model)
                self._executor.load(self._received)
            case RunForward(step):
                return ForwardDone(step, self._forward(step))
            case RunBackward(step, gradient, is_last=is_last):
                self._backward(step, gradient, is_last=is_last)
                return None if is_last else BackwardDone(step)
            case TrainLocally(step):
                return WeightsCollected(step, self._coded_weights(step, self._train_locally(step)))
            case Predict(step):
                x, y = self._shard.evaluation()
                return ForwardDone(step, (self._executor.predict(x), y))
            case CollectWeights(step):
                weights = tuple(self._executor.tensors())
                check_finite("weights", weights)
                return WeightsCollected(step, self._coded_weights(step, weights))
        return None

    def _forward(self, step: StepId) -> tuple[Tensor, ...]:
        rows = self._rows[step.micro_batch]
        if rows.start == 0:
            self._batch = self._shard.draw(step)
        x, y = self._batch
        x, y = x[rows.start : rows.stop], y[rows.start : rows.stop]
        start_s = perf_counter()
        smashed = self._executor.forward(x, dropout_key=self._shard.dropout_key(step), rows=rows)
        check_finite("smashed data", [smashed])
        answer = self._coder.encode(
            FrameKind.SMASHED,
            (smashed, y),
            device=self._device,
            epoch=step.epoch,
            micro_batch=step.micro_batch,
        )
        self.forward_s += perf_counter() - start_s
        return answer

    def _coded_weights(self, step: StepId, weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self._coder.encode(
            FrameKind.WEIGHTS,
            weights,
            device=self._device,
            epoch=step.epoch,
            before=self._received,
        )

    def _backward(self, step: StepId, gradient: tuple[Tensor, ...], *, is_last: bool) -> None:
        if not gradient:
            return  # Nothing on the device to train.
        start_s = perf_counter()
        is_whole, place = self._join.micro_batches is None, step.micro_batch
        plain = self._gradients if is_whole else self._gradients[place : place + 1]
        self._executor.backward(
            whole_gradient(self._coder.decode(FrameKind.GRADIENT, gradient, plain)),
            learning_rate=self._join.learning_rate,
            clip=self._join.clip,
            is_last=is_last,
        )
        self.backward_s += perf_counter() - start_s

    def _train_locally(self, last: StepId) -> tuple[Tensor, ...]:
        start_s = perf_counter()
        trained = train_locally(
            self._executor,
            self._shard,
            last,
            local_epochs=self._join.local_epochs,
            learning_rate=self._join.learning_rate,
            clip=self._join.clip,
        )
        self.forward_s += perf_counter() - start_s
        return trained
