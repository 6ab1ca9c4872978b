"""Count the FLOPs of whatever torch runs.

- Matrix products and convolutions are counted by torch's own formulas; a multiply and an add are
  two FLOPs, and adding a bias is free. Its formula for the backward pass over-counts convolutions
  in groups, so ours replaces it: each of the two gradients costs what the forward pass costs.
- Pooling is one FLOP for each element of each window.
- Everything else is one FLOP for each element of the largest tensor that an operator reads or
  writes. Moving, copying and viewing data is free.

Torch's own counter has the same formulas, but brings in torch's compiler, which takes seconds.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from runtime.models.kernels import plain_kernels

FREE = frozenset(
    {
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_"),
        *("zeros", "zeros_like", "new_zeros", "ones", "ones_like", "full", "full_like", "zero_"),
        *("fill_", "scalar_tensor", "arange", "lift_fresh", "detach_", "_local_scalar_dense"),
        *("clone", "copy", "copy_", "_to_copy", "contiguous", "_unsafe_view", "_reshape_alias"),
        *(
            "cat",
            "stack",
            "unsafe_split",
            "constant_pad_nd",
            "roll",
            "flip",
            "repeat",
            "set_",
            "alias",
        ),
        *("index", "index_select", "gather", "embedding", "slice_backward", "select_backward"),
    }
)
"""Operators that compute nothing; views are known by their schema."""


class FlopCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what runs while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flop = 0
        """Counted so far."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from wrapping the method below, for which it imports its compiler."""
        return False

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's own signature
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        with self:  # An operator that is made of others counts as those.
            parts: object = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        output: object = func(*args, **kwargs)
        packet = func.overloadpacket
        if packet is torch.ops.aten.convolution_backward:
            self.flop += _convolution_backward_flop(*args)
        elif packet in flop_registry:
            self.flop += flop_registry[packet](*args, **kwargs, out_val=output)
        elif not func.is_view:
            self.flop += _operator_flop(packet.__name__, args, output)
        return output


@contextmanager
def count_flop() -> Iterator[FlopCount]:
    """Count the FLOPs of what runs inside; the count is complete when the block is left."""
    with plain_kernels(), FlopCount() as count:
        yield count


def _operator_flop(operator: str, args: tuple[Any, ...], output: object) -> int:
    if operator in FREE:
        return 0
    if "_pool" in operator and not operator.endswith("_backward") and "adaptive" not in operator:
        pooled, kernel = tree_leaves(output)[0], args[1]
        num_axes = pooled.dim() - 2
        return int(pooled.numel() * prod(kernel) ** (num_axes // len(kernel)))
    tensors = [leaf for leaf in tree_leaves((args, output)) if isinstance(leaf, torch.Tensor)]
    largest = max((tensor.numel() for tensor in tensors), default=0)
    # A single number is a counter, such as batch norm's of batches.
    return largest if largest > 1 else 0


def _convolution_backward_flop(
    output_gradient: torch.Tensor,
    inputs: torch.Tensor,
    weight: torch.Tensor,
    *settings: Any,  # noqa: ANN401 - bias, stride, padding, dilation, transposed, ..., mask
) -> int:
    transposed, mask = settings[4], settings[7]
    positions = inputs.shape[2:] if transposed else output_gradient.shape[2:]
    forward_flop = 2 * inputs.shape[0] * prod(positions) * prod(weight.shape)
    input_wanted, weight_wanted, *_ = mask
    return forward_flop * (int(input_wanted) + int(weight_wanted))
