"""From a module to a network that can be cut wherever one tensor crosses."""

import copy
import operator
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from runtime.errors import SettingsError
from runtime.models.dropout import replace_dropout, set_dropout_keys
from runtime.models.graph.draws import seed_draws
from runtime.models.graph.flow import Flow, Place
from runtime.models.graph.network import GraphNetwork
from runtime.models.graph.steps import Part, Step, write_parts
from runtime.models.graph.tracer import INNER, TraceFailedError, main_output, trace
from runtime.models.graph.values import BATCHES, DRAWS
from runtime.models.sequence import Shape


@dataclass(frozen=True)
class _Mode:
    """The graph of one of the two modes, training or evaluation."""

    flow: Flow
    made: dict[str, nn.Module]

    @property
    def draws_anew(self) -> bool:
        """Whether it draws otherwise than the user's module, once that has its dropout seeded."""
        return bool(self.made) and any(
            node.meta.get(DRAWS) or (node.op == "call_module" and str(node.target) in self.made)
            for node in self.flow.nodes
        )


def capture(module: nn.Module, *, name: str, input_shape: Shape) -> GraphNetwork:
    """Make a network of any module that takes one tensor, whose state it shares.

    Dropout is replaced in the module, too. Raises SettingsError where the module cannot be run,
    recorded, or does not do what was recorded.
    """
    replace_dropout(module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        samples, token_ids = _samples_for(module, input_shape, name=name)
        modes = {
            training: _record(module, samples, token_ids=token_ids, training=training, name=name)
            for training in (True, False)
        }
        network = _assemble(module, modes, name=name, input_shape=input_shape)
        for training, mode in modes.items():
            if not mode.draws_anew:
                _check(network, module, samples[0], training=training, token_ids=token_ids)
    return network


def _samples_for(
    module: nn.Module, shape: Shape, *, name: str
) -> tuple[tuple[torch.Tensor, ...], bool]:
    """Batches that the module takes, and whether they are token ids."""
    numbers = tuple(torch.randn(size, *shape) for size in BATCHES)
    reason = _why_not(module, numbers[0])
    if reason is None:
        return numbers, False
    ids = tuple(torch.ones(size, *shape) for size in BATCHES)
    if _why_not(module, ids[0].long()) is None:
        return ids, True
    raise SettingsError(f"{name} does not run on samples of shape {shape}: {reason}")


def _why_not(module: nn.Module, batch: torch.Tensor) -> str | None:
    """Say why a copy of the module does not run on a batch; None if it does."""
    subject = copy.deepcopy(module).train()
    set_dropout_keys(subject, [((0,), len(batch))])
    try:
        with torch.no_grad():
            subject(batch)
    except Exception as error:  # whatever a user's own code raises
        return str(error).partition("\n")[0] or type(error).__name__
    return None


def _record(
    module: nn.Module,
    samples: tuple[torch.Tensor, ...],
    *,
    token_ids: bool,
    training: bool,
    name: str,
) -> _Mode:
    subject = copy.deepcopy(module).train(training)
    given = tuple(batch.clone() for batch in samples)
    try:
        root, graph = trace(subject, given, token_ids=token_ids)
    except TraceFailedError as error:
        raise SettingsError(f"{name} cannot be recorded as a graph: {error}") from error
    made = seed_draws(root, graph)
    return _Mode(Flow(root, graph), made)


def _assemble(
    module: nn.Module, modes: Mapping[bool, _Mode], *, name: str, input_shape: Shape
) -> GraphNetwork:
    pairs = _shared_places(modes)
    trained = write_parts(modes[True].flow, [each for each, _ in pairs], training=True)
    evaluated = write_parts(modes[False].flow, [each for _, each in pairs], training=False)
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
    uncut = {**modes[False].flow.refused, **modes[True].flow.refused}
    return GraphNetwork(steps, {**state, **rest}, name=name, input_shape=input_shape, uncut=uncut)


def _shared_places(modes: Mapping[bool, _Mode]) -> list[tuple[Place, Place]]:
    """Places that both graphs have, and which is what can be cut at; the end is one."""
    train, evaluate = modes[True].flow, modes[False].flow
    others = {place.name: place for place in evaluate.places[:-1]}
    pairs = [(place, others[place.name]) for place in train.places[:-1] if place.name in others]
    return [*pairs, (train.places[-1], evaluate.places[-1])]


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
        train=train.run,
        evaluate=train.run if same else evaluate.run,
        overwrites=train.overwrites or evaluate.overwrites,
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


def _check(
    network: GraphNetwork,
    module: nn.Module,
    batch: torch.Tensor,
    *,
    training: bool,
    token_ids: bool,
) -> None:
    """Compare copies of both, in one mode, to the bit."""
    outputs = []
    for each in (network, module):
        subject = copy.deepcopy(each).train(training)
        set_dropout_keys(subject, [((0,), len(batch))])
        given = batch.long() if token_ids and each is module else batch.clone()
        with torch.no_grad():
            outputs.append(main_output(subject(given)))
    ours, theirs = outputs
    assert isinstance(ours, torch.Tensor)
    if not isinstance(theirs, torch.Tensor) or not torch.equal(ours, theirs):
        mode = "training" if training else "evaluation"
        raise SettingsError(
            f"what was recorded of {network.name} is not what it does in {mode}: its code changes "
            "tensors in a way that cannot be recorded"
        )


__all__ = ["INNER", "capture"]
