"""Sliding windows over the spatial dimensions of a tensor [sample, channel, *space]."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

aten = torch.ops.aten


def per_dimension(value: Sequence[int] | int | None, num_dims: int, default: int) -> list[int]:
    """Spread an ATen argument that may be absent, or given once for all dimensions."""
    values = [value] if isinstance(value, int) else list(value or [default])
    return values * num_dims if len(values) == 1 else values


@dataclass(frozen=True)
class Window:
    """Kernel, stride, padding and dilation, each [spatial dimension]."""

    kernel: list[int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]

    @property
    def num_dims(self) -> int:
        """Number of spatial dimensions."""
        return len(self.kernel)

    def offsets(self) -> Iterator[tuple[int, ...]]:
        """Positions inside the kernel, in row-major order."""
        return itertools.product(*[range(size) for size in self.kernel])

    def views(self, x: Tensor, out_size: Sequence[int], *, fill: float) -> Iterator[Tensor]:
        """For every kernel offset, what it sees: a view [sample, channel, *out_size] of x."""
        x = self._padded(x, out_size, fill)
        for offset in self.offsets():
            view = x
            for dim, position in enumerate(offset):
                start, step = position * self.dilation[dim], self.stride[dim]
                stop = start + (out_size[dim] - 1) * step + 1
                view = aten.slice.Tensor(view, 2 + dim, start, stop, step)
            yield view

    def _padded(self, x: Tensor, out_size: Sequence[int], fill: float) -> Tensor:
        pads: list[int] = []
        for dim in reversed(range(self.num_dims)):
            reach = (out_size[dim] - 1) * self.stride[dim] + 1
            reach += self.dilation[dim] * (self.kernel[dim] - 1)
            after = max(0, reach - (x.shape[2 + dim] + self.padding[dim]))
            pads += [self.padding[dim], after]
        return aten.constant_pad_nd(x, pads, fill) if any(pads) else x

    def fold(self, columns: Tensor, kernel: Tensor, space: Sequence[int]) -> Tensor:
        """Add every column back where its windows saw it: the transpose of `views`.

        `columns` is [sample, one or kernel offset, *out]; `kernel` says where each column goes.
        """
        no_padding = [0] * self.num_dims
        folded: Tensor = aten.convolution(
            columns, kernel, None, self.stride, no_padding, self.dilation, True, no_padding, 1
        )
        for dim, (before, size) in enumerate(zip(self.padding, space, strict=True)):
            stop = min(folded.shape[2 + dim], before + size)
            folded = aten.slice.Tensor(folded, 2 + dim, before, stop)
            missing = size - folded.shape[2 + dim]
            if missing > 0:
                later_dims = [0, 0] * (self.num_dims - 1 - dim)
                folded = aten.constant_pad_nd(folded, [*later_dims, 0, missing], 0.0)
        return folded
