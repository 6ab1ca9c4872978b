"""What graphs would take of this device, found out before they run.

ONNX Runtime infers the shapes itself: a session is made of a copy of the graph that gives every
value as an output, for one size of batch and without optimisation. Such a session computes and
allocates nothing, whatever the graph would.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import onnxruntime as ort
import psutil
from google.protobuf.message import Message

from device_agent.engines.graph_operators import flop_of
from device_agent.engines.graph_reader import read_model
from device_agent.limits import Limits
from runtime.errors import MalformedMessageError, SettingsError
from runtime.wire.device_graphs import DeviceGraphs, DeviceManifest, GraphName

MOST_PREDICTED = 64
"""Samples that are evaluated at once, at most."""

_ITEM_BYTES = {
    "tensor(bool)": 1,
    "tensor(int8)": 1,
    "tensor(uint8)": 1,
    "tensor(float16)": 2,
    "tensor(int32)": 4,
    "tensor(float)": 4,
    "tensor(int64)": 8,
    "tensor(double)": 8,
}
_FATAL = 4
_COPIES_OF_STATE = 4
_MASK_BYTES = 12

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """Bytes of all values of a graph, none of them given up early, and its arithmetic."""

    num_bytes: int
    flop: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.num_bytes + other.num_bytes, self.flop + other.flop)


_known: dict[tuple[str, int], Cost] = {}
_MOST_KNOWN = 1000


def check_cost(graphs: DeviceGraphs, *, batch_size: int, limits: Limits) -> None:
    """Raise SettingsError if a mini-batch of so many samples takes more than this device may give.

    MalformedMessageError for a graph whose values' shapes do not follow from its inputs'.
    """
    fixed = graphs.manifest.batch_size
    work: tuple[tuple[str, int, tuple[GraphName, ...]], ...] = (
        ("a step of", fixed or batch_size, ("forward", "backward")),
        ("an evaluation of", fixed or MOST_PREDICTED, ("predict",)),
    )
    memory_bytes = limits.memory_bytes or psutil.virtual_memory().available
    for what, num_samples, names in work:
        found = [_cost_once(graphs, name, num_samples) for name in names if name in graphs.payloads]
        cost = sum(found, Cost(_held_bytes(graphs.manifest, num_samples), 0.0))
        where = f"{what} {num_samples} samples takes"
        if cost.num_bytes > memory_bytes:
            raise SettingsError(
                f"{where} {cost.num_bytes / 1e6:.0f} MB here, and may take "
                f"{memory_bytes / 1e6:.0f}; --max-memory allows more"
            )
        if cost.flop > limits.step_flop:
            raise SettingsError(
                f"{where} {cost.flop:.1e} floating-point operations here, and may take "
                f"{limits.step_flop:.1e}; --max-step-flop allows more"
            )


def _held_bytes(manifest: DeviceManifest, num_samples: int) -> int:
    """What lies beside the graphs: weights with gradients and optimiser, masks and their bits."""
    state = sum(spec.num_bytes for spec in manifest.state)
    masks = sum(math.prod(mask.shape) for mask in manifest.masks) * num_samples
    return _COPIES_OF_STATE * state + _MASK_BYTES * masks


def _cost_once(graphs: DeviceGraphs, name: GraphName, batch_size: int) -> Cost:
    """Look at a graph once in a process, however many of its devices run it."""
    key = (graphs.manifest.graph_specs()[name].sha256, batch_size)
    if key not in _known:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[key] = cost_of(graphs.payloads[name], batch_size)
    return _known[key]


def cost_of(payload: bytes, batch_size: int) -> Cost:
    """Add up what each operator of a graph gives and computes for a batch of this size."""
    model = read_model(payload)
    shapes, num_bytes = _shapes(model, batch_size)
    flop = math.fsum(flop_of(node, shapes) for node in model.graph.node)
    return Cost(num_bytes, flop)


def _shapes(model: Message, batch_size: int) -> tuple[Mapping[str, Shape], int]:
    """The shape of each value, and the bytes of all."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    num_bytes = 0
    follow_batch = _named_dimensions(model)
    session = _session_of_all(model, dict.fromkeys(follow_batch, batch_size))
    for value in chain(session.get_inputs(), session.get_outputs()):
        sizes = [batch_size if size in follow_batch else size for size in value.shape]
        if value.type not in _ITEM_BYTES or not all(isinstance(size, int) for size in sizes):
            raise MalformedMessageError(
                f"value {value.name!r} of a graph has no fixed shape ({value.type}, {value.shape})"
            )
        shapes[value.name] = tuple(sizes)
        num_bytes += math.prod(sizes) * _ITEM_BYTES[value.type]
    return shapes, num_bytes


def _session_of_all(model: Message, sizes: Mapping[str, int]) -> ort.InferenceSession:
    """Load a graph so that it says the shape of everything in it."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _FATAL
    for dimension, size in sizes.items():
        options.add_free_dimension_override_by_name(dimension, size)
    open_about = type(model)()
    open_about.CopyFrom(model)
    given = {value.name for value in model.graph.output}
    inner = (name for node in model.graph.node for name in node.output if name not in given)
    for name in filter(None, inner):
        open_about.graph.output.add(name=name)
    try:
        return ort.InferenceSession(
            open_about.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its errors have no common class but this one
        raise MalformedMessageError(f"not a graph whose shapes can be told: {error}") from error


def _named_dimensions(model: Message) -> set[str]:
    """Those that follow the batch."""
    dimensions = (d for value in model.graph.input for d in value.type.tensor_type.shape.dim)
    return {dimension.dim_param for dimension in dimensions if dimension.dim_param}
