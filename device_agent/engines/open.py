"""Opening the engine that a device is to train with."""

from device_agent.engines.engine import Engine
from device_agent.engines.graph_store import GraphStore
from device_agent.limits import Limits
from runtime.distribution import install_hint
from runtime.errors import SettingsError
from runtime.offered import ONNX_ENGINE
from runtime.wire.commands import Assignment

_TO_ALLOW = "start this device's agent with"


def open_engine(
    name: str,
    assignment: Assignment,
    *,
    sample_shape: tuple[int, ...],
    graphs: GraphStore | None = None,
    num_threads: int = 1,
    limits: Limits | None = None,
) -> Engine:
    """Make the network of a job with the named engine.

    `graphs` and `num_threads` are for onnxruntime: the graphs of earlier jobs, and the threads
    of a session. Torch has its threads from its own setting. `limits` are the owner's
    (without: the usual ones); SettingsError for code that they do not allow.
    """
    limits = limits or Limits()
    if name == ONNX_ENGINE:
        from device_agent.engines.onnx_engine import OnnxEngine  # noqa: PLC0415

        store = GraphStore() if graphs is None else graphs
        return OnnxEngine(
            assignment,
            sample_shape=sample_shape,
            graphs=store,
            num_threads=num_threads,
            limits=limits,
        )
    if name == "torch":
        limits.allowed_code.check(assignment.network, what="the network", to_allow=_TO_ALLOW)
        limits.allowed_code.check(assignment.loss, what="the loss", to_allow=_TO_ALLOW)
        try:
            from device_agent.engines.torch_engine import TorchEngine  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"the torch engine needs {error.name}: {install_hint('torch')}"
            ) from error
        return TorchEngine(assignment, sample_shape=sample_shape, limits=limits)
    raise SettingsError(f"no engine named {name!r}; there are torch and {ONNX_ENGINE}")
