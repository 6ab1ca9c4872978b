"""One operator for many equal steps, one after another: what recurrent layers are made of.

Traced step by step, a recurrent layer is thousands of operators, each of which torch's tracer takes
milliseconds for. As one operator it is traced once, and written out step by step at the end.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Tensors = list[Tensor]
Step = Callable[[Tensors, Tensors, Tensors], tuple[Tensors, Tensors]]
"""From its rows of the sequences, what is carried and the constants, to what is carried on and its
outputs. Rows are [1, sample, feature]."""
STEPS: dict[str, Step] = {}
"""Steps by their names."""


def named_step(step: Step) -> Step:
    """Register a step under its own name."""
    STEPS[step.__name__] = step
    return step


@torch.library.custom_op("cpsl::scan", mutates_args=())
def scan(
    step: str,
    sequences: list[Tensor],
    carried: list[Tensor],
    constants: list[Tensor],
    is_reversed: bool,
) -> list[Tensor]:
    """Run a step along the first axis of the sequences; its outputs, stacked along it."""
    num_steps = len(sequences[0])
    rows: dict[int, Tensors] = {}
    for at in reversed(range(num_steps)) if is_reversed else range(num_steps):
        given = [sequence[at : at + 1] for sequence in sequences]
        carried, rows[at] = STEPS[step](given, carried, constants)
    in_order = [rows[at] for at in range(num_steps)]
    return [torch.cat(parts) for parts in map(list, zip(*in_order, strict=True))]


@scan.register_fake
def _(
    step: str,
    sequences: list[Tensor],
    carried: list[Tensor],
    constants: list[Tensor],
    is_reversed: bool,  # noqa: ARG001
) -> list[Tensor]:
    _, outputs = STEPS[step]([sequence[:1] for sequence in sequences], carried, constants)
    num_steps = sequences[0].shape[0]
    return [output.new_empty(num_steps, *output.shape[1:]) for output in outputs]
