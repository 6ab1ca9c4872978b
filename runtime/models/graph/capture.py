"""From a module to a network that can be cut wherever what crosses can travel."""

import copy
import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from runtime.errors import SettingsError
from runtime.models.dropout import replace_dropout, set_dropout_keys
from runtime.models.graph.draws import seed_draws
from runtime.models.graph.flow import Flow
from runtime.models.graph.inputs import Inputs, InputShapes, call, find_inputs
from runtime.models.graph.network import GraphNetwork
from runtime.models.graph.places import Place, Places
from runtime.models.graph.steps import Part, Step, write_parts
from runtime.models.graph.tracer import INNER, TraceFailedError, main_output, trace
from runtime.models.graph.values import BATCHES, DRAWS
from runtime.seeding.torch_generator import forked_generator


@dataclass(frozen=True)
class _Mode:
    """The graph of one of the two modes, training or evaluation."""

    flow: Flow
    made: dict[str, nn.Module]

    @cached_property
    def places(self) -> Places:
        """Where it can be cut."""
        return Places(self.flow)

    @property
    def draws_anew(self) -> bool:
        """Whether it draws otherwise than the user's module, once that has its dropout seeded."""
        return bool(self.made) and any(
            node.meta.get(DRAWS) or (node.op == "call_module" and str(node.target) in self.made)
            for node in self.flow.nodes
        )


def capture(module: nn.Module, *, name: str, input_shape: InputShapes) -> GraphNetwork:
    """Make a network of any module that takes tensors, whose state it shares.

    Dropout is replaced in the module, too. Raises SettingsError where the module cannot be run,
    recorded, or does not do what was recorded.
    """
    replace_dropout(module)
    with forked_generator(0):
        inputs = find_inputs(module, input_shape, name=name)
        modes = {
            training: _record(module, inputs, training=training, name=name)
            for training in (True, False)
        }
        network = _assemble(module, modes, inputs, name=name)
        for training, mode in modes.items():
            if not mode.draws_anew:
                _check(network, module, inputs, training=training)
    return network


def _record(module: nn.Module, inputs: Inputs, *, training: bool, name: str) -> _Mode:
    subject = copy.deepcopy(module).train(training)
    given = tuple(tree_map_only(torch.Tensor, torch.clone, batch) for batch in inputs.batches)
    try:
        root, graph = trace(subject, given)
    except TraceFailedError as error:
        raise SettingsError(f"{name} cannot be recorded as a graph: {error}") from error
    made = seed_draws(root, graph)
    return _Mode(Flow(root, graph), made)


def _assemble(
    module: nn.Module, modes: Mapping[bool, _Mode], inputs: Inputs, *, name: str
) -> GraphNetwork:
    pairs = _shared_places(modes)
    row, ours, theirs = inputs.row, [each for each, _ in pairs], [each for _, each in pairs]
    trained = write_parts(modes[True].flow, row, ours, training=True)
    evaluated = write_parts(modes[False].flow, row, theirs, training=False)
    state: dict[str, object] = {}
    for part in (*trained, *evaluated):
        for path in part.attributes:
            state.setdefault(path, _find(path, module, modes))
    steps: list[Step] = []
    rest = _rest(module, state)
    seen: set[str] = set()
    for place, train, evaluate in zip((p for p, _ in pairs), trained, evaluated, strict=True):
        is_last = len(steps) == len(pairs) - 1
        steps.append(_step(place, train, evaluate, seen, rest if is_last else {}))
        seen.update(steps[-1].attributes)
    own = module.state_dict().keys()
    return GraphNetwork(
        steps,
        {**state, **rest},
        name=name,
        input_shape=row.sample_shape,
        uncut={**modes[False].places.refused, **modes[True].places.refused},
        constants=frozenset(
            path
            for path, value in state.items()
            if isinstance(value, torch.Tensor) and path not in own
        ),
    )


def _shared_places(modes: Mapping[bool, _Mode]) -> list[tuple[Place, Place]]:
    """Places that both graphs have, and which is what can be cut at; the end is one."""
    train, evaluate = modes[True].places.offered, modes[False].places.offered
    others = {(place.name, place.row.sample_shape): place for place in evaluate[:-1]}
    keyed = [(place, (place.name, place.row.sample_shape)) for place in train[:-1]]
    pairs = [(place, others[key]) for place, key in keyed if key in others]
    return [*pairs, (train[-1], evaluate[-1])]


def _step(
    place: Place, train: Part, evaluate: Part, seen: set[str], rest: Mapping[str, object]
) -> Step:
    attributes = tuple(dict.fromkeys((*train.attributes, *evaluate.attributes, *rest)))
    same = train.code == evaluate.code
    return Step(
        name=place.name,
        also=place.also,
        kind=place.kind,
        ends_module=place.ends_module,
        attributes=attributes,
        borrowed=frozenset(seen.intersection(attributes)),
        train=train,
        evaluate=replace(evaluate, run=train.run) if same else evaluate,
    )


def _find(path: str, module: nn.Module, modes: Mapping[bool, _Mode]) -> object:
    """What a graph calls by this path: the user's own, a new layer, or a constant of a graph."""
    for mode in modes.values():
        if path in mode.made:
            return mode.made[path]
    for owner in (module, modes[True].flow.root, modes[False].flow.root):
        try:
            return operator.attrgetter(path)(owner)
        except AttributeError:
            continue
    raise AssertionError(path)


def _rest(module: nn.Module, state: Mapping[str, object]) -> dict[str, object]:
    """State that no graph uses, by its names: it stays what it is, on the server."""
    return {
        name: tensor
        for name, tensor in module.state_dict(keep_vars=True).items()
        if not any(name == path or name.startswith(f"{path}.") for path in state)
    }


def _check(network: GraphNetwork, module: nn.Module, inputs: Inputs, *, training: bool) -> None:
    """Compare copies of both, in one mode, to the bit."""
    ours = copy.deepcopy(network).train(training)
    set_dropout_keys(ours, [((0,), BATCHES[0])])
    with torch.no_grad():
        actual = ours(inputs.rows[0].clone())
        expected = main_output(inputs.outputs if training else _evaluated(module, inputs))
    if not isinstance(expected, torch.Tensor) or not torch.equal(actual, expected):
        mode = "training" if training else "evaluation"
        raise SettingsError(
            f"what was recorded of {network.name} is not what it does in {mode}: its code changes "
            "tensors in a way that cannot be recorded"
        )


def _evaluated(module: nn.Module, inputs: Inputs) -> object:
    subject = copy.deepcopy(module).eval()
    return call(subject, tree_map_only(torch.Tensor, torch.clone, inputs.batches[0]))


__all__ = ["INNER", "capture"]
