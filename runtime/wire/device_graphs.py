"""The device side of a network as ONNX graphs, with a manifest that says what they take and give.

Beside them, parameters that do not learn, which travel to a device once, not with each model.

Nothing here knows torch, ONNX or ONNX Runtime: the coordinator writes these, the device reads them.

Values are named alike in all three graphs: a tensor of the state by its name in the state dict,
`SAMPLES`, `SMASHED` and `GRADIENT`, and the rest by the functions below. The backward graph takes
what the forward graph took or gave, and `GRADIENT`.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from runtime.errors import MalformedMessageError
from runtime.offered import ONNX_ENGINE
from runtime.wire.commands import FrozenOffer, GraphsOffer
from runtime.wire.fields import Message
from runtime.wire.frames import Tensor, TensorSpec, specs_of

ENGINE = ONNX_ENGINE
"""The engine that runs these graphs, as a device's status names it."""
OPSET = 18
MAX_MANIFEST_BYTES = 2_000_000
SAMPLES = "<samples>"
SMASHED = "<smashed>"
GRADIENT = "<gradient>"
SHIPPED_NETWORK, SHIPPED_BATCH_SIZE = "lenet", 16
"""Whose graphs ship with the package: a device without a job is rated by them."""
SHIPPED_CUTS = (6,)
"""Two blocks of convolution and pooling; linear layers are rated alike."""

DType = Literal["float32", "float64", "float16", "int64", "int32", "bool"]
GraphName = Literal["forward", "backward", "predict"]
GRAPH_NAMES: tuple[GraphName, ...] = ("forward", "backward", "predict")
ITEM_BYTES: dict[str, int] = {
    "float32": 4,
    "float64": 8,
    "float16": 2,
    "int64": 8,
    "int32": 4,
    "bool": 1,
}


PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
POOLS = ("AveragePool", "LpPool", "MaxPool")
_OF_EACH_VALUE = (
    *("Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BatchNormalization"),
    *("Cast", "CastLike", "Ceil", "Celu", "Clip", "Concat", "Constant", "ConstantOfShape", "Cos"),
    *("Cosh", "DepthToSpace", "Div", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten"),
    *("Floor", "Gather", "GatherElements", "GatherND", "Gelu", "GlobalAveragePool"),
    *("GlobalMaxPool", "Greater", "GreaterOrEqual", "GroupNormalization", "HardSigmoid"),
    *("HardSwish", "Hardmax", "Identity", "InstanceNormalization", "IsInf", "IsNaN"),
    *("LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax"),
    *("LpNormalization", "Max", "Mean", "MeanVarianceNormalization", "Min", "Mish", "Mod", "Mul"),
    *("Neg", "Not", "OneHot", "Or", "PRelu", "Pad", "Pow", "Range", "Reciprocal", "ReduceL1"),
    *("ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "Round"),
    *("ScatterElements", "ScatterND", "Selu", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh"),
    *("Size", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt"),
    *("Squeeze", "Sub", "Sum", "Tan", "Tanh", "ThresholdedRelu", "Tile", "Transpose", "Trilu"),
    *("Unsqueeze", "Where", "Xor"),
)
OPERATORS = frozenset((*PRODUCTS, *POOLS, *_OF_EACH_VALUE))
"""The operators that a device runs for a coordinator: plain arithmetic, whose cost shapes tell.

No control flow, no loops over a sequence, no random numbers, no text, nothing that reads a file.
"""


def shipped_folder(cut: int) -> str:
    """Name the folder that a cut's graphs ship in."""
    return f"{SHIPPED_NETWORK}-{cut}"


def mask_value(layer: str) -> str:
    """Name the dropout mask of a layer, in the forward graph and where backward needs it."""
    return f"<mask>{layer}"


def updated_value(tensor: str) -> str:
    """Name the new value of a buffer, which the forward graph gives."""
    return f"<updated>{tensor}"


def gradient_value(tensor: str) -> str:
    """Name the gradient of a trained tensor, which the backward graph gives."""
    return f"<gradient>{tensor}"


class GraphValue(Message):
    """The name, shape and dtype of a graph's value; None is a dimension that follows the batch."""

    name: str = Field(min_length=1, max_length=500)
    shape: tuple[int | None, ...] = Field(max_length=8)
    dtype: DType


class StateSpec(Message):
    """A parameter or buffer of the device side; only what is `trained` has a gradient."""

    name: str = Field(min_length=1, max_length=500)
    shape: tuple[int, ...] = Field(max_length=8)
    dtype: DType
    trained: bool

    @property
    def num_bytes(self) -> int:
        """Size of the tensor."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


class MaskSpec(Message):
    """A dropout mask that the device draws: zeros, and `1 / (1 - p)` where a value is kept.

    `shape` is that of one sample. Of a channel-wise mask the dimensions after the channels are 1.
    """

    layer: str = Field(max_length=500)
    shape: tuple[int, ...] = Field(max_length=8)
    p: float = Field(gt=0, lt=1)
    channel_wise: bool


class GraphSpec(Message):
    """What one graph takes and gives, in its own order, and the bytes that it must be."""

    inputs: tuple[GraphValue, ...]
    outputs: tuple[GraphValue, ...]
    num_bytes: int = Field(gt=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class DeviceManifest(Message):
    """All that a device knows of its side of the network.

    `state` is in the order of the state dict. `batch_size` is None where graphs take batches of
    any size. `backward` is None where no tensor is trained. `saved_bytes` is what forward keeps
    for backward: fixed, and for each sample of the batch.
    """

    max_bytes: ClassVar[int] = MAX_MANIFEST_BYTES
    unsent_if_none: ClassVar[tuple[str, ...]] = ("frozen",)

    opset: Literal[18] = 18
    batch_size: int | None = Field(default=None, gt=0)
    samples: GraphValue
    smashed: GraphValue
    state: tuple[StateSpec, ...]
    masks: tuple[MaskSpec, ...]
    forward: GraphSpec
    backward: GraphSpec | None
    predict: GraphSpec
    saved_bytes_fixed: int = Field(ge=0)
    saved_bytes_per_sample: int = Field(ge=0)
    frozen: tuple[str, ...] | None = Field(
        None, description="names of parameters that do not learn: they are in no device-side model"
    )

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, which holds those of the graphs: it names all of them."""
        return hashlib.sha256(self.encode()).hexdigest()

    @property
    def smashed_shape(self) -> tuple[int, ...]:
        """Shape of one sample's smashed data."""
        return tuple(size for size in self.smashed.shape[1:] if size is not None)

    def graph_specs(self) -> dict[GraphName, GraphSpec]:
        """The graphs that there are, by name."""
        specs = {name: getattr(self, name) for name in GRAPH_NAMES}
        return {name: spec for name, spec in specs.items() if spec is not None}


@dataclass(frozen=True)
class DeviceGraphs:
    """The manifest and, for each graph in it, the serialised ONNX model."""

    manifest: DeviceManifest
    payloads: dict[GraphName, bytes]

    @property
    def digest(self) -> str:
        """Name of exactly these graphs: two exports of equal bytes have equal digests."""
        return self.manifest.digest

    def offer(self) -> GraphsOffer:
        """Name these graphs and their sizes, so that a device knows what it asks for."""
        return GraphsOffer(digest=self.digest, num_bytes=tuple(len(t) for t in self.tensors()))

    def tensors(self) -> tuple[Tensor, ...]:
        """Give the manifest and the graphs that there are, as a frame carries them."""
        parts = [self.manifest.encode(), *(self.payloads[name] for name in self._names)]
        return tuple(np.frombuffer(part, np.uint8) for part in parts)

    @property
    def _names(self) -> list[GraphName]:
        return list(self.manifest.graph_specs())


def offered_specs(offer: GraphsOffer | FrozenOffer) -> tuple[TensorSpec, ...]:
    """Shapes of the frame that carries what was offered."""
    sizes = offer.num_bytes if isinstance(offer, GraphsOffer) else (offer.num_bytes,)
    return tuple(TensorSpec("|u1", (size,)) for size in sizes)


def read_graphs(offer: GraphsOffer, tensors: Sequence[Tensor]) -> DeviceGraphs | None:
    """Read a frame; None unless its bytes are those that the offer names.

    The digest is that of the manifest, and the manifest has the digests of the graphs. Raises
    MalformedMessageError where even the right bytes are no graphs: asking again will not help.
    """
    manifest_bytes, *graphs = (tensor.tobytes() for tensor in tensors)
    if hashlib.sha256(manifest_bytes).hexdigest() != offer.digest:
        return None
    manifest = DeviceManifest.decode(manifest_bytes)
    specs = manifest.graph_specs()
    if len(specs) != len(graphs):
        raise MalformedMessageError(f"{len(graphs)} graphs came; the manifest has {len(specs)}")
    digests = [hashlib.sha256(graph).hexdigest() for graph in graphs]
    if digests != [spec.sha256 for spec in specs.values()]:
        return None
    return DeviceGraphs(manifest, dict(zip(specs, graphs, strict=True)))


def frozen_offer(tensors: Sequence[Tensor]) -> FrozenOffer | None:
    """Name some parameters; None if there are none."""
    if not tensors:
        return None
    digest = hashlib.sha256(repr(specs_of(tensors)).encode())
    for part in _parts(tensors):
        digest.update(part)
    return FrozenOffer(digest=digest.hexdigest(), num_bytes=_size(tensors))


def pack_frozen(tensors: Sequence[Tensor]) -> Tensor:
    """Join parameters to one tensor of bytes, which a frame carries."""
    return np.concatenate([np.frombuffer(part, np.uint8) for part in _parts(tensors)])


def unpack_frozen(whole: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Take apart what `pack_frozen` gave; MalformedMessageError unless it is as long as these."""
    if whole.nbytes != _size(like):
        raise MalformedMessageError(
            f"{whole.nbytes} bytes of parameters that do not learn came; there are {_size(like)}"
        )
    buffer, found, start = whole.tobytes(), [], 0
    for spec in specs_of(like):
        part = buffer[start : start + spec.num_bytes]
        found.append(np.frombuffer(part, spec.dtype).reshape(spec.shape))
        start += spec.num_bytes
    return found


def _parts(tensors: Sequence[Tensor]) -> Iterator[bytes]:
    for tensor, spec in zip(tensors, specs_of(tensors), strict=True):
        yield np.ascontiguousarray(tensor, dtype=spec.dtype).tobytes()


def _size(tensors: Sequence[Tensor]) -> int:
    return sum(spec.num_bytes for spec in specs_of(tensors))
