"""From a module to a network that can be cut wherever what crosses can travel."""

import copy
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import fx, nn
from torch.utils._pytree import tree_map_only

from runtime.errors import SettingsError
from runtime.models.dropout import dropout_layers, replace_dropout, set_dropout_keys
from runtime.models.graph.draws import seed_draws
from runtime.models.graph.flow import Flow
from runtime.models.graph.inputs import Inputs, InputShapes, call, find_inputs
from runtime.models.graph.network import GraphNetwork
from runtime.models.graph.numberless import is_quick, numberless
from runtime.models.graph.places import Place, Places
from runtime.models.graph.steps import Part, Step, write_parts
from runtime.models.graph.tracer import INNER, TraceFailedError, main_output, trace
from runtime.models.graph.values import BATCHES, DRAWS, values_of
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
            for node in self.flow.graph.nodes
        )


def capture(module: nn.Module, *, name: str, input_shape: InputShapes) -> GraphNetwork:
    """Make a network of any module that takes tensors, whose state it shares.

    Dropout is replaced in the module, too. Raises SettingsError where the module cannot be run,
    recorded, or does not do what was recorded.
    """
    replace_dropout(module)
    for layer in dropout_layers(module):
        layer.may_be_shared = True  # The graph will know.
    with forked_generator(0):
        inputs = find_inputs(module, input_shape, name=name)
        shapes = _shapes(module)
        modes = {
            training: _record(module, shapes, inputs, training=training, name=name)
            for training in (True, False)
        }
        network = _assemble(module, modes, inputs, name=name)
        _check(network, module, inputs, [mode for mode in modes if not modes[mode].draws_anew])
    return network


def _shapes(module: nn.Module) -> nn.Module | None:
    """The module without numbers, where there can be such a copy and it is of use."""
    try:
        return numberless(module) if is_quick() else None
    except Exception:  # whatever a tensor of the user's own kind raises
        return None


def _record(
    module: nn.Module, shapes: nn.Module | None, inputs: Inputs, *, training: bool, name: str
) -> _Mode:
    subject = copy.deepcopy(module).train(training)
    given = tuple(tree_map_only(torch.Tensor, torch.clone, batch) for batch in inputs.batches)
    try:
        root, graph = trace(subject, given, shapes=shapes)
    except TraceFailedError as error:
        raise SettingsError(f"{name} cannot be recorded as a graph: {error}") from error
    _check_output(graph, training=training, name=name)
    made = seed_draws(root, graph)
    return _Mode(Flow(root, graph), made)


def _check_output(graph: fx.Graph, *, training: bool, name: str) -> None:
    """SettingsError unless the graph gives one tensor with a row for each sample."""
    given = next(reversed(graph.nodes)).args[0]
    first = values_of(given)[0] if isinstance(given, fx.Node) else given
    what = f"a {type(first).__name__}"
    if isinstance(first, torch.Tensor):
        if first.shape[:1] == BATCHES[:1]:
            return
        what = f"a tensor of shape {tuple(first.shape)}"
    mode = "training" if training else "evaluation"
    raise SettingsError(
        f"{name} gives {what} for {BATCHES[0]} samples in {mode}, and what is learnt from is one "
        "tensor with a row for each sample; have its forward return that, alone or first"
    )


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
        step = _step(place, train, evaluate, seen, rest if is_last else {})
        steps.append(_last(step, modes[False].flow) if is_last else step)
        seen.update(step.attributes)
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
    """Places that both graphs have, in one order, which is what can be cut at; the end is one."""
    train, evaluate = modes[True].places.offered, modes[False].places.offered
    last = {place.name: place for place in train[:-1]}  # Of two of one name.
    others = {(place.name, place.row.sample_shape): place for place in evaluate[:-1]}
    pairs: list[tuple[Place, Place]] = []
    for place in train[:-1]:
        other = others.get((place.name, place.row.sample_shape))
        if other is None or last[place.name] is not place:
            continue
        if not pairs or other.index > pairs[-1][1].index:
            pairs.append((place, other))
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
        shape=place.row.sample_shape,
        dtype=torch.float32,
    )


def _last(step: Step, flow: Flow) -> Step:
    """The step that gives what the network gives, which does not travel."""
    output = values_of(flow.output)[0]
    return replace(step, shape=tuple(output.shape[1:]), dtype=output.dtype)


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


def _check(network: GraphNetwork, module: nn.Module, inputs: Inputs, modes: Sequence[bool]) -> None:
    """Compare copies of both to the bit, in each of the modes."""
    ours = copy.deepcopy(network)
    for training in sorted(modes):  # Training changes its buffers, so evaluation is first.
        ours.train(training)
        is_equal = (
            _trains_alike(ours, inputs) if training else _evaluates_alike(ours, module, inputs)
        )
        if not is_equal:
            mode = "training" if training else "evaluation"
            raise SettingsError(
                f"what was recorded of {network.name} is not what it does in {mode}: its code "
                "changes tensors in a way that cannot be recorded"
            )


def _trains_alike(ours: GraphNetwork, inputs: Inputs) -> bool:
    set_dropout_keys(ours, [((0,), BATCHES[0])])
    with torch.no_grad():
        return torch.equal(ours(inputs.rows[0].clone()), main_output(inputs.outputs))  # type: ignore[arg-type]


def _evaluates_alike(ours: GraphNetwork, module: nn.Module, inputs: Inputs) -> bool:
    """Compare on one sample, by which nothing was recorded; on a batch where one is special."""
    subject = copy.deepcopy(module).eval()
    return _agree(ours, subject, inputs, num_samples=1) or _agree(
        ours, copy.deepcopy(module).eval(), inputs, num_samples=BATCHES[0]
    )


def _agree(ours: GraphNetwork, module: nn.Module, inputs: Inputs, *, num_samples: int) -> bool:
    given = tree_map_only(torch.Tensor, lambda x: x[:num_samples].clone(), inputs.batches[0])
    with torch.no_grad():
        try:
            actual, expected = ours(inputs.rows[0][:num_samples].clone()), call(module, given)
        except Exception:  # whatever the user's own code raises; a batch, it has taken
            return False
    expected = main_output(expected)
    return isinstance(expected, torch.Tensor) and torch.equal(actual, expected)


__all__ = ["INNER", "capture"]
