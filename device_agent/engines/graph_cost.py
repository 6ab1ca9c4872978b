"""What graphs would take of this device, by the shapes of their values, before they run."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil

from device_agent.engines.graph_operators import flop_of
from device_agent.engines.graph_reader import read_model
from device_agent.engines.graph_shapes import ITEM_BYTES, Forms, forms_of
from device_agent.limits import Limits
from runtime.errors import SettingsError
from runtime.wire.device_graphs import DeviceGraphs, DeviceManifest, GraphName

MOST_PREDICTED = 64
"""Samples that are evaluated at once, at most."""

_COPIES_OF_STATE = 4
_MASK_BYTES = 12


@dataclass(frozen=True)
class Cost:
    """Bytes of all values of a graph, none of them given up early, and its arithmetic."""

    num_bytes: int
    flop: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.num_bytes + other.num_bytes, self.flop + other.flop)


_known: dict[str, tuple[Forms, Cost]] = {}
_MOST_KNOWN = 50


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
        found = _costs(graphs, names, num_samples)
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


def _costs(graphs: DeviceGraphs, names: Sequence[GraphName], batch_size: int) -> Iterator[Cost]:
    """What graphs that run one after another cost; each is looked at once in a process."""
    key, forms = f"{batch_size}", Forms()
    for name in names:
        if name in graphs.payloads:
            key += graphs.manifest.graph_specs()[name].sha256
            if key not in _known:
                if len(_known) >= _MOST_KNOWN:
                    _known.clear()
                forms = forms_of(graphs.payloads[name], batch_size, forms)
                _known[key] = forms, cost_of(graphs.payloads[name], forms)
            forms, cost = _known[key]
            yield cost


def cost_of(payload: bytes, forms: Forms) -> Cost:
    """Add up what each operator of a graph gives and computes, by the forms of its values."""
    model = read_model(payload)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    shapes |= {name: tuple(size or 0 for size in form.shape) for name, form in forms.items()}
    flop = math.fsum(flop_of(node, shapes) for node in model.graph.node)
    return Cost(sum(form.num_items * ITEM_BYTES[form.type] for form in forms.values()), flop)
