"""The device side of a job on ONNX Runtime: whatever graphs the coordinator sent for it."""

from collections.abc import Callable

from device_agent.compute_probe import ComputeTimings
from device_agent.empty_executor import EmptyExecutor
from device_agent.executor import Executor
from device_agent.graph_shelf import GraphShelf
from device_agent.onnx_executor import OnnxExecutor
from runtime.device_graphs import DeviceGraphs
from runtime.errors import SettingsError
from runtime.messages import Assignment


class OnnxEngine:
    """A job's network without its code; see `device_agent.executor.Engine`."""

    def __init__(
        self,
        assignment: Assignment,
        *,
        sample_shape: tuple[int, ...],
        graphs: GraphShelf,
        num_threads: int,
    ) -> None:
        self.graphs = graphs
        self._assignment = assignment
        self._sample_shape = sample_shape
        self._num_threads = num_threads
        self._opened: tuple[DeviceGraphs, OnnxExecutor] | None = None

    def check(self, sample_shape: tuple[int, ...]) -> None:
        """Accept any samples for now: what fits is known when the graphs come."""

    def layer_timings(
        self,
        *,
        batch_size: int,  # noqa: ARG002
        budget_s: float,  # noqa: ARG002
        clock: Callable[[], float],  # noqa: ARG002
    ) -> ComputeTimings | None:
        """Measure nothing: graphs come with the first turn, whose seconds are measured anyway."""
        return None

    def open(self, cut: int) -> Executor:
        """Open the graphs in use, which are those of this cut; the same again, if it is the same.

        An executor holds nothing that `load` does not replace, and most rounds keep the cut.
        """
        if cut == 0:
            return EmptyExecutor(self._sample_shape)
        graphs = self.graphs.in_use
        wanted = graphs.manifest.samples.shape[1:]
        if wanted != self._sample_shape:
            raise SettingsError(
                f"samples of shape {self._sample_shape} do not fit the network, which takes "
                f"{wanted}; give this device other data"
            )
        if self._opened is None or self._opened[0] is not graphs:
            executor = OnnxExecutor(
                graphs,
                self._assignment.optimizer,
                carry_state=self._assignment.carry_state,
                loss=self._assignment.loss,
                num_threads=self._num_threads,
            )
            self._opened = (graphs, executor)
        return self._opened[1]
