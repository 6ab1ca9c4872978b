"""The device side on ONNX Runtime and numpy: no torch, no model code.

The graphs are ordinary: what torch would keep between forward and backward, the forward graph
gives and the backward graph takes. Weights are inputs, updated in place by numpy.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from device_agent.engines.engine import DropoutKey
from device_agent.engines.graph_check import check_graphs
from device_agent.engines.graph_cost import MOST_PREDICTED
from device_agent.engines.numpy_training import clipped, load_loss
from device_agent.engines.onnx_session import OnnxWeights, Session, Values, to_value
from runtime.errors import SettingsError
from runtime.seeding import dropout_mask
from runtime.wire.commands import Clip, LossOptions, OptimizerSpec
from runtime.wire.device_graphs import (
    GRADIENT,
    SAMPLES,
    SMASHED,
    DeviceGraphs,
    GraphName,
    gradient_value,
    mask_value,
    updated_value,
)
from runtime.wire.frames import Tensor, TensorSpec
from runtime.wire.micro_batches import Rows

Floats = NDArray[np.float32]


class OnnxExecutor:
    """The device side at one cut; see `device_agent.engines.engine.Executor`.

    With `carry_state` the optimiser's slots travel with the weights; without, they are forgotten
    whenever weights are loaded. Raises MalformedMessageError for graphs that are not to be run.
    """

    def __init__(
        self,
        graphs: DeviceGraphs,
        optimizer: OptimizerSpec,
        *,
        carry_state: bool,
        loss: str,
        loss_options: LossOptions | None = None,
        num_threads: int,
    ) -> None:
        check_graphs(graphs)
        self._graphs, self._manifest = graphs, graphs.manifest
        self._loss_name, self._loss_options = loss, loss_options
        self._num_threads = num_threads
        self._weights = OnnxWeights(graphs.manifest, optimizer, carry_state=carry_state)
        self._forward = self._open("forward")
        self._backward = None if graphs.manifest.backward is None else self._open("backward")
        self._predict: Session | None = None
        self._steps: deque[Values] = deque()
        """What each micro-batch that has yet to go back gave."""
        self._gradients: dict[str, Floats] = {}
        """Sums over the micro-batches that have gone back."""

    def model_specs(self) -> tuple[TensorSpec, ...]:
        """Tensors that `load` takes and `tensors` gives."""
        return self._weights.specs()

    @property
    def learns(self) -> bool:
        """Whether any of its parameters does: else no gradient comes back."""
        return any(spec.trained for spec in self._manifest.state)

    def frozen(self) -> list[Tensor]:
        """Parameters that do not learn, which `load` does not take; lent, not copied."""
        return self._weights.frozen()

    def load_frozen(self, tensors: Sequence[Tensor]) -> None:
        """Take over what `frozen` gives."""
        self._weights.load_frozen(tensors)

    def smashed_spec(self, num_samples: int) -> TensorSpec:
        """What `forward` gives for so many samples."""
        return TensorSpec("<f4", (num_samples, *self._manifest.smashed_shape))

    def load(self, tensors: Sequence[Tensor]) -> None:
        """Take over a device-side model."""
        self._weights.load(tensors)

    def tensors(self) -> list[Tensor]:
        """Copies of what `load` takes."""
        return self._weights.tensors()

    def forward(self, x: Floats, *, dropout_key: DropoutKey, rows: Rows | None = None) -> Floats:
        """Smashed data of a mini-batch, or of a micro-batch; keeps what `backward` needs."""
        rows, expected = rows or Rows.all(len(x)), self._manifest.batch_size
        if expected not in (None, len(x)):
            raise SettingsError(
                f"the graphs of this network take batches of {expected} samples, not {len(x)}; "
                "use --engine torch on this device, or a batch size that it has the samples for"
            )
        step = {**self._weights.values, SAMPLES: self._samples(x)}
        for mask in self._manifest.masks:
            drawn = dropout_mask(dropout_key, mask.layer, (rows.of, *mask.shape), mask.p)
            step[mask_value(mask.layer)] = to_value(drawn[rows.start : rows.stop])
        if rows.start == 0:
            self._steps.clear()
            self._gradients.clear()
        self._steps.append(step | self._forward.run(step))
        self._take_buffers(self._steps[-1])
        smashed: Floats = self._steps[-1][SMASHED].numpy()
        return smashed

    def backward(
        self,
        gradient: Floats,
        *,
        learning_rate: float,
        clip: Clip | None = None,
        is_last: bool = True,
    ) -> None:
        """Gradients of the parameters, of one forward after another; the last brings the update."""
        assert self._steps, "backward without a forward before it"
        step = self._steps.popleft()
        if self._backward is None:
            return
        step[GRADIENT] = to_value(np.ascontiguousarray(gradient, dtype=np.float32))
        found = self._backward.run(step)
        for spec in self._manifest.state:
            own = found.get(gradient_value(spec.name))
            if own is not None:
                before = self._gradients.get(spec.name)
                self._gradients[spec.name] = own.numpy() if before is None else before + own.numpy()
        if is_last:
            for name, total in clipped(self._gradients, clip).items():
                self._weights.update(name, total, learning_rate=learning_rate)
            self._gradients.clear()

    def train(
        self,
        x: Floats,
        y: Tensor,
        *,
        dropout_key: DropoutKey,
        learning_rate: float,
        clip: Clip | None = None,
    ) -> float:
        """Forward, loss, backward and update of a whole network; the loss."""
        loss_and_gradient = load_loss(self._loss_name, self._loss_options)
        outputs = self.forward(x, dropout_key=dropout_key)
        loss, gradient = loss_and_gradient(outputs, np.asarray(y))
        self.backward(gradient, learning_rate=learning_rate, clip=clip)
        return loss

    def predict(self, x: Floats) -> Floats:
        """Forward in evaluation mode."""
        if self._predict is None:
            self._predict = self._open("predict")
        batch_size = self._manifest.batch_size or min(len(x), MOST_PREDICTED)
        parts = [x[start : start + batch_size] for start in range(0, len(x), batch_size)]
        return np.concatenate([self._predict_batch(self._predict, part) for part in parts])

    def _predict_batch(self, session: Session, x: Floats) -> Floats:
        """Evaluate one batch; a graph of fixed batch size gets zeros for the missing samples."""
        missing = (self._manifest.batch_size or len(x)) - len(x)
        if missing:
            padded = np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)])
            return self._predict_batch(session, padded)[: len(x)]
        values = {**self._weights.values, SAMPLES: self._samples(x)}
        smashed: Floats = session.run(values)[SMASHED].numpy()
        return smashed

    def _take_buffers(self, step: Values) -> None:
        """Make the forward's new buffers the current ones; its backward still has the old."""
        for spec in self._manifest.state:
            new = step.get(updated_value(spec.name))
            if new is not None:
                self._weights.replace(spec.name, np.array(new.numpy()).reshape(spec.shape))

    def _samples(self, x: Floats) -> ort.OrtValue:
        return to_value(np.ascontiguousarray(x, dtype=self._manifest.samples.dtype))

    def _open(self, name: GraphName) -> Session:
        spec = self._manifest.graph_specs()[name]
        return Session(self._graphs.payloads[name], spec, num_threads=self._num_threads)
