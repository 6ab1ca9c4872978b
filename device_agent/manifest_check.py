"""Whether a manifest agrees with itself: every value that a graph takes is there when it runs."""

from collections.abc import Iterable, Mapping

from runtime.errors import MalformedMessageError
from runtime.wire.device_graphs import (
    GRADIENT,
    SAMPLES,
    SMASHED,
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


def check_manifest(manifest: DeviceManifest) -> None:
    """Raise MalformedMessageError unless the three graphs can be run one after another."""
    trained = [spec for spec in manifest.state if spec.trained]
    frozen = [spec for spec in manifest.state if not spec.trained]
    smashed = _renamed(manifest.smashed, SMASHED)
    state = _by_name(_value(spec.name, spec) for spec in manifest.state)
    given = state | _by_name([*_masks(manifest), _renamed(manifest.samples, SAMPLES)])
    if len(given) != len(manifest.state) + len(manifest.masks) + 1:
        raise MalformedMessageError("the manifest has two values of one name")
    updated = _by_name(_value(updated_value(spec.name), spec) for spec in frozen)
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
