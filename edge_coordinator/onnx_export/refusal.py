"""Say in one sentence which layer cannot be exported, why, and what to do."""

import copy
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from runtime.errors import SettingsError

_RANDOM = ("bernoulli", "rand", "native_dropout", "randn", "uniform", "normal_", "multinomial")
_ADVICE = "use --engine torch on the devices, or cut earlier"


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
    layer, cause = _innermost(module, samples, attempt)
    where = f"layer {layer}" if layer else "the device side"
    return SettingsError(f"cannot export {where}: {_reason(cause or error)}; {_ADVICE}")


def _innermost(
    module: nn.Module, samples: Tensor, attempt: Callable[[nn.Module, Tensor], Any]
) -> tuple[str, Exception | None]:
    for name, child, child_input in _children_with_inputs(module, samples):
        try:
            attempt(child, child_input)
        except Exception as error:  # whatever torch raises for a layer without an export
            inner, cause = _innermost(child, child_input, attempt)
            return f"{name}.{inner}" if inner else name, cause or error
    return "", None


def _children_with_inputs(
    module: nn.Module, samples: Tensor
) -> list[tuple[str, nn.Module, Tensor]]:
    """The direct children that take a single tensor, in the order in which they run.

    A copy runs, in evaluation: so no statistics move, and no dropout asks for its keys.
    """
    found: list[tuple[str, nn.Module, Tensor]] = []

    def note(name: str, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        if len(arguments) == 1 and isinstance(arguments[0], Tensor):
            found.append((name, module.get_submodule(name), arguments[0].detach().clone()))

    with suppress(Exception), torch.no_grad():  # What ran until it failed is enough.
        subject = copy.deepcopy(module).eval()
        for name, child in subject.named_children():
            child.register_forward_pre_hook(partial(note, name))
        subject(samples)
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
