"""What crosses a cut, or enters a network: one tensor, or several as one row for each sample.

A tensor alone travels as it is. Several are flattened and joined to rows of float32, which either
side takes apart again: so whatever carries, counts and compresses smashed data knows one tensor,
and its bytes are those of all. Each comes out as it went in: its axes, its type, its order in
memory, by which kernels add up, and so the same bits. Whole numbers up to 2^24 survive float32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from runtime.errors import SettingsError
from runtime.models.graph.values import BATCHES
from runtime.models.sequence import Shape

TRAVELLING = (torch.float32, torch.bool, torch.int64, torch.int32)
"""Types that a row can hold."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a row."""

    shape: Shape
    """Of one sample."""
    dtype: torch.dtype = torch.float32
    batch_axis: int = 0
    order: tuple[int, ...] | None = None
    """Its axes from the outermost in memory; None where they lie as they are counted."""

    @property
    def size(self) -> int:
        """How many values of a row it takes."""
        return prod(self.shape)

    @property
    def is_plain(self) -> bool:
        """Whether it travels as it is."""
        return self.dtype == torch.float32 and not self.batch_axis and self.order is None

    def leave(self, value: torch.Tensor) -> torch.Tensor:
        """Give it samples first, in float32; its gradient will lie in memory as it does."""
        if value.requires_grad:
            value = _LaidOut.apply(value, self._axes)  # type: ignore[no-untyped-call]
        return value.movedim(self.batch_axis, 0).to(torch.float32)

    def arrive(self, value: torch.Tensor) -> torch.Tensor:
        """Take what `leave` gave, or a flat piece of a row, for what it was."""
        tensor = value.reshape(-1, *self.shape).to(self.dtype)
        if self.batch_axis:
            tensor = tensor.movedim(0, self.batch_axis)
        return laid_out(tensor, self._axes)

    @property
    def _axes(self) -> tuple[int, ...]:
        return self.order or tuple(range(len(self.shape) + 1))


def laid_out(tensor: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """Lay a tensor out in memory without gaps, its axes in this order from the outermost."""
    back = [order.index(axis) for axis in range(len(order))]
    return tensor.permute(order).contiguous().permute(back)


class _LaidOut(torch.autograd.Function):
    """A value whose gradient comes back laid out: kernels add up in the order of memory."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own signature
        value: torch.Tensor,
        order: tuple[int, ...],
    ) -> torch.Tensor:
        ctx.order = order
        return value.view_as(value)

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401 - torch's own signature
        *gradients: torch.Tensor,
    ) -> tuple[torch.Tensor, None]:
        return laid_out(gradients[0], ctx.order), None


@dataclass(frozen=True)
class Row:
    """Tensors that travel together, in their order; by name where `names` has any."""

    entries: tuple[Entry, ...]
    names: tuple[str, ...] = ()

    @property
    def sample_shape(self) -> Shape:
        """Shape of what travels for one sample."""
        only = self.entries[0]
        return only.shape if len(self.entries) == 1 else (sum(e.size for e in self.entries),)

    def pack(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """Join the values of a batch to what travels."""
        if len(self.entries) == 1 and self.entries[0].is_plain:
            return values[0]
        parts = [entry.leave(value) for entry, value in zip(self.entries, values, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat([_flat(part) for part in parts], dim=1)

    def unpack(self, x: torch.Tensor) -> tuple[Any, ...]:
        """Take apart what travelled; as one dictionary where the tensors have names."""
        values = self._parts(x)
        return (dict(zip(self.names, values, strict=True)),) if self.names else values

    def _parts(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        only = self.entries[0]
        if len(self.entries) == 1:
            return (x if only.is_plain else only.arrive(x),)
        parts = torch.split(x.flatten(1), [entry.size for entry in self.entries], dim=1)
        return tuple(e.arrive(part) for e, part in zip(self.entries, parts, strict=True))


class DoesNotTravelError(Exception):
    """Why a value cannot cross a cut."""


def _flat(part: torch.Tensor) -> torch.Tensor:
    """One row for each sample; what is one value of each sample is a row of one.

    In no words that ask for the number of samples, which would be written down as that of now.
    """
    return part.flatten(1) if part.dim() > 1 else part.unsqueeze(1)


def entry_of(values: Sequence[object]) -> Entry:
    """How a tensor travels, of which batches of two sizes are known; else DoesNotTravelError."""
    first, second = values
    if not isinstance(first, torch.Tensor) or not isinstance(second, torch.Tensor):
        raise DoesNotTravelError(f"what it gives is a {type(first).__name__}, not one tensor")
    if first.dtype not in TRAVELLING:
        raise DoesNotTravelError(f"what it gives is {_name(first.dtype)}, not float32")
    sizes = list(zip(first.shape, second.shape, strict=True))
    grown = [axis for axis, pair in enumerate(sizes) if pair[0] != pair[1]]
    if len(grown) != 1 or sizes[grown[0]] != BATCHES:
        raise DoesNotTravelError("no axis of what it gives is that of the samples")
    batch_axis = grown[0]
    shape = tuple(size for axis, (size, _) in enumerate(sizes) if axis != batch_axis)
    return Entry(shape, first.dtype, batch_axis, _order(first))


def _order(tensor: torch.Tensor) -> tuple[int, ...] | None:
    if tensor.is_contiguous():
        return None
    strides = tensor.stride()
    order = tuple(sorted(range(tensor.dim()), key=lambda axis: -strides[axis]))
    if not tensor.permute(order).is_contiguous():
        raise DoesNotTravelError("what it gives is a view with gaps, which would arrive without")
    return order


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def rows_of(samples: Mapping[str, ArrayLike], inputs: Mapping[str, Shape]) -> NDArray[np.float32]:
    """Join samples that are dictionaries of arrays, [sample, ...], to the rows of a network.

    In the order of their names, as items of data sets are joined. `inputs` are the network's own.
    """
    missing = [name for name in inputs if name not in samples]
    if missing:
        raise SettingsError(
            f"the network takes {', '.join(inputs)}; the samples have {', '.join(samples)}, "
            f"so {missing[0]} is missing"
        )
    parts = []
    for name, shape in sorted(inputs.items()):
        array = np.asarray(samples[name])
        if array.shape[1:] != shape:
            raise SettingsError(
                f"{name} of a sample has shape {array.shape[1:]}; the network takes {shape}"
            )
        parts.append(array.reshape(len(array), -1).astype(np.float32))
    return np.concatenate(parts, axis=1)
