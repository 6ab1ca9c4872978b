"""The compute of an emulated device: what it computes takes longer. Nobody else is told."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from device_agent.engines.compute_timings import ComputeTimings
from device_agent.engines.engine import DropoutKey, Engine, Executor
from device_agent.engines.graph_store import GraphStore
from device_agent.engines.measurement import Found, Measurement
from profiles.emulation import DeviceClass
from runtime.wire.commands import Clip
from runtime.wire.frames import Tensor, TensorSpec
from runtime.wire.measures import LayerWork
from runtime.wire.micro_batches import Rows

Clock = Callable[[], float]
Result = TypeVar("Result")


class EmulatedEngine:
    """An engine of a device that computes more slowly than this machine.

    It sleeps in the compute thread, so an emulated device needs a thread of its own. Its own
    seconds are those of the processor, so that the company it has here is not multiplied.
    """

    def __init__(
        self,
        inner: Engine,
        device_class: DeviceClass,
        *,
        cpu_clock: Clock = time.thread_time,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inner = inner
        self._class = device_class
        self._cpu_clock, self._clock, self._sleep = cpu_clock, clock, sleep
        self._start_s = clock()

    def check(self, sample_shape: tuple[int, ...]) -> None:
        """SettingsError unless such samples fit the network."""
        self._inner.check(sample_shape)

    def cut_of(self, layer: str) -> int:
        """Ask the engine."""
        return self._inner.cut_of(layer)

    def open(self, cut: int) -> Executor:
        """Cut the network after so many layers."""
        return EmulatedExecutor(self._inner.open(cut), self)

    @property
    def graphs(self) -> GraphStore | None:
        """Where the engine keeps its graphs, if it takes any."""
        return self._inner.graphs

    def check_batch(self, cut: int, num_samples: int) -> None:
        """SettingsError if a step of so many samples takes more than it may here."""
        self._inner.check_batch(cut, num_samples)

    def measure_layers(
        self,
        batch: NDArray[np.float32],
        *,
        budget_s: float,
        clock: Clock,  # noqa: ARG002
    ) -> Measurement[Any] | None:
        """Time each layer by this thread's own clock; it comes to what it takes on this device."""
        measurement = self._inner.measure_layers(batch, budget_s=budget_s, clock=self._cpu_clock)
        return self._slowed(measurement) if measurement else None

    def measure_cut(
        self,
        cut: int,
        layers: Sequence[LayerWork],
        batch: NDArray[np.float32],
        *,
        digest: str,
        budget_s: float,
        clock: Clock,  # noqa: ARG002
    ) -> Measurement[Any]:
        """Time the device side at one cut in the same way."""
        measurement = self._inner.measure_cut(
            cut, layers, batch, digest=digest, budget_s=budget_s, clock=self._cpu_clock
        )
        return self._slowed(measurement)

    def _slowed(self, measurement: Measurement[Found]) -> Measurement[Found]:
        """What this processor takes is found once for all classes: each makes its own of it."""

        def read(found: Found) -> ComputeTimings | None:
            timings = measurement.read(found)
            return timings.slowed(self.slowdown()) if timings else None

        return replace(measurement, read=read)

    def use_threads(self, num_threads: int) -> None:
        """Compute with so many."""
        self._inner.use_threads(num_threads)

    def slowdown(self) -> float:
        """How many times as long this device takes now."""
        point = self._class.at(self._clock() - self._start_s)
        return max(1.0, self._class.slowdown * point.slowdown_factor)

    def take_longer(self, work: Callable[[], Result]) -> Result:
        """Do a piece of work, and sleep for as long as the device would still be at it."""
        slowdown = self.slowdown()
        start_s, cpu_start_s = self._clock(), self._cpu_clock()
        result = work()
        cpu_s = self._cpu_clock() - cpu_start_s
        left_s = start_s + slowdown * cpu_s - self._clock()
        if slowdown > 1 and left_s > 0:
            self._sleep(left_s)
        return result


class EmulatedExecutor:
    """The device side on an emulated device; see `device_agent.engines.engine.Executor`."""

    def __init__(self, inner: Executor, engine: EmulatedEngine) -> None:
        self._inner = inner
        self._longer = engine.take_longer

    def model_specs(self) -> tuple[TensorSpec, ...]:
        """Tensors that `load` takes and `tensors` gives."""
        return self._inner.model_specs()

    @property
    def learns(self) -> bool:
        """Whether any of its parameters does."""
        return self._inner.learns

    def frozen(self) -> list[Tensor]:
        """Parameters that do not learn."""
        return self._inner.frozen()

    def load_frozen(self, tensors: Sequence[Tensor]) -> None:
        """Take over what `frozen` gives."""
        self._inner.load_frozen(tensors)

    def smashed_spec(self, num_samples: int) -> TensorSpec:
        """What `forward` gives for so many samples."""
        return self._inner.smashed_spec(num_samples)

    def load(self, tensors: Sequence[Tensor]) -> None:
        """Take over a device-side model."""
        self._inner.load(tensors)

    def tensors(self) -> list[Tensor]:
        """Copies of what `load` takes."""
        return self._inner.tensors()

    def forward(
        self, x: NDArray[np.float32], *, dropout_key: DropoutKey, rows: Rows | None = None
    ) -> NDArray[np.float32]:
        """Smashed data of a mini-batch or a micro-batch; keeps what `backward` needs."""
        return self._longer(lambda: self._inner.forward(x, dropout_key=dropout_key, rows=rows))

    def backward(
        self,
        gradient: NDArray[np.float32],
        *,
        learning_rate: float,
        clip: Clip | None = None,
        is_last: bool = True,
    ) -> None:
        """Gradients of the parameters, and after the last the update."""
        self._longer(
            lambda: self._inner.backward(
                gradient, learning_rate=learning_rate, clip=clip, is_last=is_last
            )
        )

    def train(
        self,
        x: NDArray[np.float32],
        y: Tensor,
        *,
        dropout_key: DropoutKey,
        learning_rate: float,
        clip: Clip | None = None,
    ) -> float:
        """Forward, loss, backward and update of a whole network; the loss."""
        return self._longer(
            lambda: self._inner.train(
                x, y, dropout_key=dropout_key, learning_rate=learning_rate, clip=clip
            )
        )

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Forward in evaluation mode."""
        return self._longer(lambda: self._inner.predict(x))
