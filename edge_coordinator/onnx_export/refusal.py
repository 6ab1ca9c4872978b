"""Say in one sentence which layer cannot be exported, why, and what to do."""

import copy
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import onnx
import torch
from torch import Tensor, fx, nn

from runtime.errors import SettingsError
from runtime.models.graph.network import GraphNetwork
from runtime.models.sequence import layers_of
from runtime.wire.device_graphs import OPERATORS

_RANDOM = ("bernoulli", "rand", "native_dropout", "randn", "uniform", "normal_", "multinomial")
_ADVICE = "use --engine torch on the devices"
_NUM_CUTS = 3
"""How many cuts that work a refusal names."""


class UnsupportedOperatorError(NotImplementedError):
    """An operator for which there is neither an ONNX translation nor a rule of ours."""


def check_operators(module: fx.GraphModule) -> None:
    """Raise UnsupportedOperatorError for what would translate to nothing, or to chance."""
    targets = [str(node.target) for node in module.graph.nodes if node.op == "call_function"]
    names = sorted({re.sub(r"\.\w+$", "", target) for target in targets if "aten." in target})
    for name in names:
        if any(name.removeprefix("aten.").startswith(word) for word in _RANDOM):
            raise UnsupportedOperatorError(
                f"{name} draws random numbers outside an nn.Dropout layer"
            )
        if "backward" in name:
            raise UnsupportedOperatorError(f"{name} has no rule")


def check_written(model: onnx.ModelProto) -> None:
    """Raise UnsupportedOperatorError for what torch's exporter may write, and no device runs."""
    foreign = sorted({node.op_type for node in model.graph.node} - OPERATORS)
    if foreign:
        raise UnsupportedOperatorError(f"{foreign[0]} of ONNX is none that a device runs")


def reject_shared_state(module: nn.Module) -> None:
    """Raise SettingsError where one tensor has two names: the device would train it twice."""
    names: dict[int, str] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        first = names.setdefault(id(tensor), name)
        if first != name:
            raise SettingsError(
                f"cannot export the device side: {first} and {name} are one tensor; {_ADVICE}"
            )


def refuse(
    module: nn.Module,
    samples: Tensor,
    error: Exception,
    attempt: Callable[[nn.Module, Tensor], Any],
) -> SettingsError:
    """Find the innermost layer that `attempt` fails on alone, and say what is wrong with it."""
    names, cause = _innermost(module, samples, attempt)
    where = f"layer {'.'.join(names)}" if names else "the device side"
    advice = f"{_cuts_before(module, names)}{_ADVICE}"
    return SettingsError(f"cannot export {where}: {_reason(cause or error)}; {advice}")


def _cuts_before(module: nn.Module, names: list[str]) -> str:
    """Advise to cut before the layer that fails, at the nearest of the cuts."""
    layers = list(layers_of(module))
    before = layers[: layers.index(names[0])] if names and names[0] in layers else []
    if not before:
        return ""
    nearest = " or ".join(reversed(before[-_NUM_CUTS:]))
    return f"cut after {nearest}{'' if len(before) <= _NUM_CUTS else ', or earlier'}, or "


def _innermost(
    module: nn.Module, samples: Tensor, attempt: Callable[[nn.Module, Tensor], Any]
) -> tuple[list[str], Exception | None]:
    """Names from the outermost to the innermost layer that fails alone, and why that does."""
    for name, child, child_input in _children_with_inputs(module, samples):
        try:
            attempt(child, child_input)
        except Exception as error:  # whatever torch raises for a layer without an export
            inner, cause = _innermost(child, child_input, attempt)
            return [name, *inner], cause or error
    return [], None


def _children_with_inputs(
    module: nn.Module, samples: Tensor
) -> list[tuple[str, nn.Module, Tensor]]:
    """The direct children that take a single tensor, in the order in which they run.

    A copy runs, in evaluation: so no statistics move, and no dropout asks for its keys.
    """
    found: list[tuple[str, nn.Module, Tensor]] = []
    layers = layers_of(module) if isinstance(module, GraphNetwork) else {}
    if len(layers) > 1:
        return _steps_with_inputs(layers, samples)

    def note(name: str, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        if len(arguments) == 1 and isinstance(arguments[0], Tensor):
            found.append((name, module.get_submodule(name), arguments[0].detach().clone()))

    with suppress(Exception), torch.no_grad():  # What ran until it failed is enough.
        subject = copy.deepcopy(module).eval()
        for name, child in subject.named_children():
            child.register_forward_pre_hook(partial(note, name))
        subject(samples)
    return found


def _steps_with_inputs(
    layers: Mapping[str, nn.Module], samples: Tensor
) -> list[tuple[str, nn.Module, Tensor]]:
    """The steps of a captured graph, which are no modules of its own."""
    found = []
    with suppress(Exception), torch.no_grad():  # A user's layer need not take what it is given.
        for name, layer in layers.items():
            found.append((name, layer, samples))
            samples = copy.deepcopy(layer).eval()(samples)
    return found


def _reason(error: BaseException) -> str:
    """Name the operator, where the chain of errors knows it, and what was said of it."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for link in chain:
        if isinstance(link, UnsupportedOperatorError):
            return f"operator {link}"
    text = " ".join(str(link) for link in chain)
    operator = re.search(r"\b(?:aten|torchvision|prims|[a-z_]+::)\.?\w+", text)
    first_line = str(chain[-1]).strip().splitlines() or [type(chain[-1]).__name__]
    named = f"operator {operator.group()}: " if operator else ""
    return f"{named}{first_line[0][:200]}"
