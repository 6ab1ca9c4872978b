"""The device side of a job on ONNX Runtime: whatever graphs the coordinator sent for it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from device_agent.engines.compute_timings import ComputeTimings
from device_agent.engines.engine import EmptyExecutor, Executor
from device_agent.engines.graph_check import check_graphs
from device_agent.engines.graph_cost import check_cost
from device_agent.engines.graph_store import GraphStore
from device_agent.engines.measurement import Measurement, Timing
from device_agent.engines.onnx_executor import OnnxExecutor
from device_agent.engines.timing import Pass, divide_among_layers, time_sides
from device_agent.limits import Limits
from runtime.errors import SettingsError
from runtime.wire.commands import Assignment
from runtime.wire.device_graphs import DeviceGraphs
from runtime.wire.measures import LayerWork


@dataclass(frozen=True)
class SideTiming:
    """The device side at one cut: seconds of a mini-batch, and their deviation."""

    seconds: Pass
    relative_deviation: float
    measured_at_unix_s: float


@dataclass(frozen=True)
class FailedSide:
    """A cut whose device side does not run here, and why."""

    reason: str


class OnnxEngine:
    """A job's network without its code; see `device_agent.engines.engine.Engine`."""

    def __init__(
        self,
        assignment: Assignment,
        *,
        sample_shape: tuple[int, ...],
        graphs: GraphStore,
        num_threads: int,
        limits: Limits,
    ) -> None:
        self.graphs = graphs
        self._limits = limits
        self._assignment = assignment
        self._sample_shape = sample_shape
        self._num_threads = num_threads
        self._opened: tuple[DeviceGraphs, OnnxExecutor] | None = None
        self._timed: dict[int, SideTiming] = {}
        """By cut."""
        self._failed: dict[int, FailedSide] = {}

    def check(self, sample_shape: tuple[int, ...]) -> None:
        """Accept any samples for now: what fits is known when the graphs come."""

    def cut_of(self, layer: str) -> int:
        """Read the number of a layer: their names are not known here."""
        return int(layer)

    def use_threads(self, num_threads: int) -> None:
        """Open sessions of so many threads."""
        if num_threads != self._num_threads:
            self._num_threads, self._opened = num_threads, None

    def measure_layers(
        self,
        batch: NDArray[np.float32],  # noqa: ARG002
        *,
        budget_s: float,  # noqa: ARG002
        clock: Callable[[], float],  # noqa: ARG002
    ) -> Measurement[SideTiming] | None:
        """Time nothing: there are no graphs yet."""
        return None

    def measure_cut(
        self,
        cut: int,
        layers: Sequence[LayerWork],
        batch: NDArray[np.float32],
        *,
        digest: str,
        budget_s: float,
        clock: Callable[[], float],
    ) -> Measurement[SideTiming | FailedSide]:
        """Time the graphs of a cut; the layers between two cuts share by their FLOPs.

        What does not run here, where a shallower cut does, is no reason to refuse the job.
        """

        def take() -> Timing[SideTiming | FailedSide]:
            return (yield from self._time_side(cut, batch, budget_s=budget_s, clock=clock))

        def read(found: SideTiming | FailedSide) -> ComputeTimings | None:
            if isinstance(found, FailedSide):
                self._failed[cut] = found
            else:
                self._timed[cut] = found
            timings = _layers_of(self._timed, layers, num_samples=len(batch))
            if timings is None or not self._failed:
                return timings
            first = min(self._failed)
            return replace(timings, deepest_cut=first - 1, why_no_deeper=self._failed[first].reason)

        key = (self._assignment.encode(), digest, cut, batch.shape, self._num_threads, clock)
        return Measurement(key, take, read)

    def _time_side(
        self,
        cut: int,
        batch: NDArray[np.float32],
        *,
        budget_s: float,
        clock: Callable[[], float],
    ) -> Timing[SideTiming | FailedSide]:
        graphs = self._fitting() if cut else None
        try:
            # Not the executor that trains: it keeps what its next backward needs.
            side = self._executor(graphs) if graphs else EmptyExecutor(self._sample_shape)
            seconds, deviation = yield from time_sides(
                [side], batch, budget_s=budget_s, clock=clock
            )
        except Exception as error:  # Whatever the graphs or the memory of this device raise.
            if not any(timed < cut for timed in self._timed):
                raise
            return FailedSide(str(error) or type(error).__name__)
        return SideTiming(seconds, deviation, time.time())

    def open(self, cut: int) -> Executor:
        """Open the graphs in use, which are those of this cut; the same again, if it is the same.

        An executor holds nothing that `load` does not replace, and most rounds keep the cut.
        """
        if cut == 0:
            return EmptyExecutor(self._sample_shape)
        graphs = self._fitting()
        if self._opened is None or self._opened[0] is not graphs:
            self._opened = (graphs, self._executor(graphs))
        return self._opened[1]

    def check_batch(self, cut: int, num_samples: int) -> None:
        """SettingsError if a step of so many samples takes more than it may here."""
        if cut:
            check_cost(self._fitting(), batch_size=num_samples, limits=self._limits)

    def _fitting(self) -> DeviceGraphs:
        """Give the graphs in use; SettingsError if they are for other samples than ours."""
        graphs = self.graphs.in_use
        wanted = graphs.manifest.samples.shape[1:]
        if wanted != self._sample_shape:
            raise SettingsError(
                f"samples of shape {self._sample_shape} do not fit the network, which takes "
                f"{wanted}; give this device other data"
            )
        return graphs

    def _executor(self, graphs: DeviceGraphs) -> OnnxExecutor:
        check_graphs(graphs)
        check_cost(graphs, batch_size=self._assignment.batch_size, limits=self._limits)
        return OnnxExecutor(
            graphs,
            self._assignment.optimizer,
            carry_state=self._assignment.carry_state,
            loss=self._assignment.loss,
            loss_options=self._assignment.loss_options,
            num_threads=self._num_threads,
        )


def _layers_of(
    timed: Mapping[int, SideTiming], layers: Sequence[LayerWork], *, num_samples: int
) -> ComputeTimings | None:
    """Divide the seconds of some device sides among the layers; None where layers are unknown."""
    cuts = sorted(cut for cut in timed if 0 < cut <= len(layers))
    if not cuts:
        return None
    forward_flop = np.array([layer.forward_flop for layer in layers])
    backward_flop = np.array([layer.backward_flop for layer in layers])
    forward_s = np.array([timed[cut].seconds.forward_s[0] for cut in cuts])
    backward_s = np.array([timed[cut].seconds.backward_s[0] for cut in cuts])
    return ComputeTimings(
        layer_names=tuple(layer.name for layer in layers),
        forward_s=divide_among_layers(forward_s, cuts, forward_flop) / num_samples,
        backward_s=divide_among_layers(backward_s, cuts, backward_flop) / num_samples,
        relative_deviation=max(timed[cut].relative_deviation for cut in cuts),
        forward_flop=float(forward_flop.sum()),
        backward_flop=float(backward_flop.sum()),
        measured_at_unix_s=max(timed[cut].measured_at_unix_s for cut in cuts),
    )
