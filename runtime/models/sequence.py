"""A network as a sequence of named layers."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from runtime.errors import SettingsError
from runtime.seeding.torch_generator import forked_generator

Shape = tuple[int, ...]

LayerDict = OrderedDict[str, nn.Module]


class NotASequenceError(SettingsError):
    """A module that does more than run its children in order."""


class Network(nn.Sequential):
    """Named layers that run in order, with the network's name and the shape of a sample.

    `input_shape` is without the batch axis; None means that the network takes any shape.
    """

    constants: frozenset[str] = frozenset()
    """Names of tensors that travel as its state and are none of the user's own module."""

    # The defaults are for slicing, which builds a sequence from its layers alone.
    def __init__(
        self, layers: LayerDict, *, name: str = "network", input_shape: Shape | None = None
    ) -> None:
        super().__init__(layers)
        self.name = name
        self.input_shape = input_shape

    def layers(self) -> LayerDict:
        """Each layer by its name, in order."""
        named = self.named_modules(remove_duplicate=False)
        return OrderedDict((name, child) for name, child in named if name and "." not in name)

    def part(self, start: int, stop: int) -> "Network":
        """Some of the layers, which both networks then share."""
        items = list(self.layers().items())[start:stop]
        shape = self.input_shape if start == 0 else None
        part = Network(OrderedDict(items), name=self.name, input_shape=shape)
        # A container starts in training mode; its layers may be in the other.
        part.training = self.training
        return part


_TAKEN = ("layers", "part", "name", "input_shape", "constants")


def layers_of(module: nn.Module) -> LayerDict:
    """Return the layers of a network, or the direct children of any other module, by name.

    In order, also where one layer object stands twice.
    """
    if isinstance(module, Network):
        return module.layers()
    named = module.named_modules(remove_duplicate=False)
    return OrderedDict((name, child) for name, child in named if name and "." not in name)


def as_network(module: nn.Module, *, name: str, input_shape: Shape | None) -> Network:
    """Turn a module whose children run in order into a sequence of them.

    An `nn.Sequential` does so by nature; for any other module it is tried out on a random
    batch. Raises NotASequenceError when the sequence does not do what the module does.
    """
    layers = layers_of(module)
    if not layers:
        raise NotASequenceError(f"{name} has no layers of its own")
    if taken := [each for each in layers if each in _TAKEN]:
        raise NotASequenceError(f"{name} has a layer {taken[0]!r}, as a sequence itself has")
    if not isinstance(module, nn.Sequential):
        _check_runs_in_order(module, layers, name=name, input_shape=input_shape)
    network = Network(_distinct(layers, name=name), name=name, input_shape=input_shape)
    _forbid_in_place(network)
    return network


def _forbid_in_place(network: Network) -> None:
    """Let no layer overwrite its input, which is the smashed data for a layer beside the cut."""
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            vars(module)["inplace"] = False


def _distinct(layers: LayerDict, *, name: str) -> LayerDict:
    """Copy the layers that stand twice; one with parameters could not be cut apart."""
    distinct: LayerDict = OrderedDict()
    owner_of: dict[int, str] = {}
    for layer_name, layer in layers.items():
        for parameter in layer.parameters():
            owner = owner_of.setdefault(id(parameter), layer_name)
            if owner != layer_name:
                raise NotASequenceError(
                    f"layers {owner} and {layer_name} of {name} share a parameter, "
                    "so no cut can lie between them; give each its own"
                )
        seen = any(layer is other for other in distinct.values())
        distinct[layer_name] = copy.deepcopy(layer) if seen else layer
    return distinct


def _check_runs_in_order(
    module: nn.Module, layers: LayerDict, *, name: str, input_shape: Shape | None
) -> None:
    own = [key for key, _ in module.named_parameters(recurse=False)]
    own += [key for key, _ in module.named_buffers(recurse=False)]
    if own:
        raise NotASequenceError(f"{name} keeps {own[0]!r} outside its layers")
    if input_shape is None:
        raise SettingsError(
            f"{name} is no nn.Sequential, and without the shape of a sample it cannot be tried "
            "out; add the option input_shape"
        )
    if len(layers) == 1 and any(True for _ in next(iter(layers.values())).children()):
        raise NotASequenceError(f"{name} is one layer with layers of its own")
    sequence = nn.Sequential(layers)
    for training in (True, False):
        try:
            expected = _try(module, input_shape, name=name, training=training)
            actual = _try(sequence, input_shape, name=f"{name} as a sequence", training=training)
        except SettingsError as error:
            raise NotASequenceError(f"{error}; its forward does more than that") from error
        if not torch.equal(expected, actual):
            raise NotASequenceError(f"running the layers in order is not {name}")
    if _asks_for_more(module, torch.zeros(2, *input_shape)):
        raise NotASequenceError(f"{name} runs its layers in order, and its forward does more")


class _Watch(TorchFunctionMode):
    """Counts what a module asks of tensors beside calling its layers."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.num_calls: int = 0
        self._depth = 0
        for layer in module.children():
            layer.register_forward_pre_hook(self._enter)
            layer.register_forward_hook(self._leave, always_call=True)

    def _enter(self, *_given: object) -> None:
        self._depth += 1

    def _leave(self, *_given: object) -> None:
        self._depth -= 1

    def __torch_function__(
        self,
        func: Callable[..., Any],
        _types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        self.num_calls += int(not self._depth)
        return func(*args, **(kwargs or {}))


def _asks_for_more(module: nn.Module, batch: torch.Tensor) -> bool:
    """Whether a forward looks at what passes, and so might do otherwise with another batch."""
    subject = copy.deepcopy(module)
    with forked_generator(0), torch.no_grad(), _Watch(subject) as watch:
        subject(batch)
    return bool(watch.num_calls)


def _try(module: nn.Module, input_shape: Shape, *, name: str, training: bool) -> torch.Tensor:
    """Run a copy on a random batch of two; equal modules draw equal dropout masks."""
    subject = copy.deepcopy(module).train(training)
    with forked_generator(0), torch.no_grad():
        batch = torch.randn(2, *input_shape)
        try:
            output = subject(batch)
        except Exception as error:  # whatever a user's own code raises
            raise SettingsError(
                f"{name} does not run on samples of shape {input_shape}: {error}"
            ) from error
    if not isinstance(output, torch.Tensor):
        raise SettingsError(f"{name} returns a {type(output).__name__}, not one tensor")
    return output
