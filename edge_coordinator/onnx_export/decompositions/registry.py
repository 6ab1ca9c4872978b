"""The rules that turn operators without an ONNX translation into operators that have one."""

from collections.abc import Callable
from functools import cache
from typing import Any

from torch._decomp import core_aten_decompositions
from torch._ops import OpOverload

Rule = Callable[..., Any]

RULES: dict[OpOverload, Rule] = {}


def decomposes(*operators: OpOverload) -> Callable[[Rule], Rule]:
    """Register a function that computes what these ATen operators compute."""

    def register(rule: Rule) -> Rule:
        for operator in operators:
            RULES[operator] = rule
        return rule

    return register


@cache
def decomposition_table() -> dict[OpOverload, Rule]:
    """Torch's core decompositions, and our own, which take precedence; collected once."""
    core: Any = core_aten_decompositions()
    return {**dict(core.items()), **RULES}
