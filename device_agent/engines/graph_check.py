"""Before a graph runs: manifest and graph have to agree, and it does nothing but arithmetic."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from google.protobuf.message import Message

from device_agent.engines.graph_reader import read_model
from runtime.errors import MalformedMessageError
from runtime.wire.commands import MAX_GRAPHS_BYTES
from runtime.wire.device_graphs import (
    GRADIENT,
    OPERATORS,
    SAMPLES,
    SMASHED,
    DeviceGraphs,
    DeviceManifest,
    GraphSpec,
    GraphValue,
    StateSpec,
    gradient_value,
    mask_value,
    updated_value,
)

_SAVED_PREFIX = "<saved>"

Values = dict[str, GraphValue]

_STANDARD_DOMAINS = ("", "ai.onnx")
_ELEMENT_TYPES = {"float32": 1, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}


def check_manifest(manifest: DeviceManifest) -> None:
    """Raise MalformedMessageError unless the three graphs can be run one after another."""
    trained = [spec for spec in manifest.state if spec.trained]
    frozen = frozenset(manifest.frozen or ())
    if frozen - {spec.name for spec in manifest.state if not spec.trained}:
        raise MalformedMessageError("the manifest freezes what learns, or what is not there")
    buffers = [spec for spec in manifest.state if not spec.trained and spec.name not in frozen]
    smashed = _renamed(manifest.smashed, SMASHED)
    state = _by_name(_value(spec.name, spec) for spec in manifest.state)
    given = state | _by_name([*_masks(manifest), _renamed(manifest.samples, SAMPLES)])
    if len(given) != len(manifest.state) + len(manifest.masks) + 1:
        raise MalformedMessageError("the manifest has two values of one name")
    updated = _by_name(_value(updated_value(spec.name), spec) for spec in buffers)
    gradients = _by_name(_value(gradient_value(spec.name), spec) for spec in trained)
    saved = _by_name(
        value for value in manifest.forward.outputs if value.name.startswith(_SAVED_PREFIX)
    )
    _check("forward", manifest.forward, given, {SMASHED: smashed, **updated, **saved})
    _check("predict", manifest.predict, given, {SMASHED: smashed})
    for graph in (manifest.forward, manifest.predict):
        if SMASHED not in (value.name for value in graph.outputs):
            raise MalformedMessageError("the manifest has a graph without smashed data")
    if manifest.backward is not None:
        kept = {**given, **saved, SMASHED: smashed, GRADIENT: _renamed(manifest.smashed, GRADIENT)}
        _check("backward", manifest.backward, kept, gradients)


def _check(name: str, graph: GraphSpec, inputs: Mapping[str, GraphValue], outputs: Values) -> None:
    for what, values, known in (
        ("takes", graph.inputs, inputs),
        ("gives", graph.outputs, outputs),
    ):
        for value in values:
            if known.get(value.name) != value:
                raise MalformedMessageError(f"the {name} graph {what} {value!r} out of nowhere")
        if len(_by_name(values)) != len(values):
            raise MalformedMessageError(f"the {name} graph {what} a value twice")


def _by_name(values: Iterable[GraphValue]) -> Values:
    return {value.name: value for value in values}


def _value(name: str, spec: StateSpec) -> GraphValue:
    return GraphValue(name=name, shape=spec.shape, dtype=spec.dtype)


def _renamed(value: GraphValue, name: str) -> GraphValue:
    return value.model_copy(update={"name": name})


def _masks(manifest: DeviceManifest) -> list[GraphValue]:
    batch = manifest.batch_size
    return [
        GraphValue(name=mask_value(mask.layer), shape=(batch, *mask.shape), dtype="float32")
        for mask in manifest.masks
    ]


def check_graphs(graphs: DeviceGraphs) -> None:
    """Raise MalformedMessageError unless every graph is safe to run and as its manifest says."""
    check_manifest(graphs.manifest)
    specs = graphs.manifest.graph_specs()
    if graphs.payloads.keys() != specs.keys():
        raise MalformedMessageError(f"graphs {sorted(graphs.payloads)}, not {sorted(specs)}")
    for name, spec in specs.items():
        try:
            check_graph(graphs.payloads[name], spec, opset=graphs.manifest.opset)
        except MalformedMessageError as error:
            raise MalformedMessageError(f"the {name} graph: {error}") from error


def check_graph(payload: bytes, spec: GraphSpec, *, opset: int) -> None:
    """Raise MalformedMessageError unless these bytes are the graph of this specification."""
    if not len(payload) == spec.num_bytes <= MAX_GRAPHS_BYTES:
        raise MalformedMessageError(
            f"{len(payload)} bytes, not {spec.num_bytes}, of at most {MAX_GRAPHS_BYTES}"
        )
    if hashlib.sha256(payload).hexdigest() != spec.sha256:
        raise MalformedMessageError("its digest is not that of the manifest")
    model = read_model(payload)
    _check_operator_sets(model, opset)
    if model.functions or model.training_info or model.graph.sparse_initializer:
        raise MalformedMessageError("it brings functions, training or sparse tensors of its own")
    for node in model.graph.node:
        _check_node(node)
    for tensor in _tensors(model.graph):
        if tensor.data_location or tensor.external_data:
            raise MalformedMessageError(f"tensor {tensor.name!r} lies in another file")
    _check_values("inputs", model.graph.input, spec.inputs)
    _check_values("outputs", model.graph.output, spec.outputs)
    constants = {tensor.name for tensor in model.graph.initializer}
    shadowed = constants.intersection(value.name for value in spec.inputs)
    if shadowed:
        raise MalformedMessageError(f"input {min(shadowed)!r} has a value already")


def _check_operator_sets(model: Message, opset: int) -> None:
    found = [(entry.domain, entry.version) for entry in model.opset_import]
    if len(found) != 1 or found[0][0] not in _STANDARD_DOMAINS or found[0][1] != opset:
        raise MalformedMessageError(f"operator sets {found}, not the standard one, {opset}")


def _check_node(node: Message) -> None:
    if node.domain not in _STANDARD_DOMAINS:
        raise MalformedMessageError(f"operator {node.domain}.{node.op_type} is not standard")
    subgraphs = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
    if node.op_type not in OPERATORS or subgraphs:
        raise MalformedMessageError(
            f"operator {node.op_type} is none of the plain arithmetic that a device runs"
        )
    for attribute in node.attribute:
        sparse = attribute.HasField("sparse_tensor") or attribute.sparse_tensors
        if sparse or attribute.ref_attr_name:
            raise MalformedMessageError(f"attribute {attribute.name!r} of {node.op_type}")


def _tensors(graph: Message) -> Iterator[Message]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors


def _check_values(what: str, found: Sequence[Message], promised: Sequence[GraphValue]) -> None:
    if len(found) != len(promised):
        raise MalformedMessageError(f"{len(found)} {what}, not {len(promised)}")
    for value, expected in zip(found, promised, strict=True):
        tensor = value.type.tensor_type
        # A dimension that follows the batch has a name there, and None here.
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim
        )
        same = value.name == expected.name and shape == expected.shape
        if not same or tensor.elem_type != _ELEMENT_TYPES[expected.dtype]:
            raise MalformedMessageError(
                f"{what} hold {value.name!r} of shape {shape} and type {tensor.elem_type}, not "
                f"{expected.name!r} of shape {expected.shape} and {expected.dtype}"
            )
