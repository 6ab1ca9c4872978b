"""Backward of max pooling, without the indices of the maxima.

ONNX Runtime's MaxPool leaves its fast path when it must give indices too, so the gradient is sent
to the first position of each window that equals the maximum, which is what torch's indices say.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from edge_coordinator.onnx_export.decompositions.activations import masked
from edge_coordinator.onnx_export.decompositions.registry import decomposes
from edge_coordinator.onnx_export.decompositions.windows import Window, per_dimension

aten = torch.ops.aten

_POOLINGS = {2: aten.max_pool2d_with_indices, 3: aten.max_pool3d_with_indices}


@decomposes(
    aten.max_pool2d_with_indices_backward.default, aten.max_pool3d_with_indices_backward.default
)
def max_pool_backward(
    gradient: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
    _indices: Tensor,
) -> Tensor:
    """Send each window's gradient to its first maximum."""
    num_dims = x.dim() - 2
    kernel = per_dimension(kernel, num_dims, 1)
    window = Window(
        kernel,
        per_dimension(stride or kernel, num_dims, 1),
        per_dimension(padding, num_dims, 0),
        per_dimension(dilation, num_dims, 1),
    )
    maximum = _POOLINGS[num_dims](
        x, kernel, window.stride, window.padding, window.dilation, ceil_mode
    )[0]
    columns = _split_by_offset(window, gradient, x, maximum)
    return window.fold(columns, _one_hot_kernel(window, x), x.shape[2:]).reshape(x.shape)


def _split_by_offset(window: Window, gradient: Tensor, x: Tensor, maximum: Tensor) -> Tensor:
    """Give the gradient as [sample x channel, kernel offset, *out], zero but at the maxima."""
    out_size = list(gradient.shape[2:])
    lowest = torch.finfo(x.dtype).min
    columns: list[Tensor] = []
    found: Tensor | None = None
    for view in window.views(x, out_size, fill=lowest):
        hit = aten.eq.Tensor(view, maximum)
        first = hit if found is None else torch.logical_and(hit, torch.logical_not(found))
        found = hit if found is None else torch.logical_or(found, hit)
        columns.append(masked(gradient, first))
    num_images = gradient.shape[0] * gradient.shape[1]
    return torch.stack(columns, 2).reshape(num_images, len(columns), *out_size)


def _one_hot_kernel(window: Window, like: Tensor) -> Tensor:
    num_offsets = len(list(window.offsets()))
    rows = [[float(row == column) for column in range(num_offsets)] for row in range(num_offsets)]
    kernel = torch.tensor(rows, dtype=like.dtype)
    return kernel.reshape(num_offsets, 1, *window.kernel)


@decomposes(aten.adaptive_max_pool2d.default)
def adaptive_max_pool(x: Tensor, out_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Pool with equal windows; sizes that do not divide have no such windows."""
    kernel = _equal_windows(x, out_size)
    values, indices = aten.max_pool2d_with_indices(x, kernel, kernel)
    return values, indices


@decomposes(aten.adaptive_max_pool2d_backward.default)
def adaptive_max_pool_backward(gradient: Tensor, x: Tensor, indices: Tensor) -> Tensor:
    """Send each window's gradient to its first maximum."""
    kernel = _equal_windows(x, gradient.shape[2:])
    result: Tensor = max_pool_backward(gradient, x, kernel, kernel, [0], [1], False, indices)
    return result


def _equal_windows(x: Tensor, out_size: Sequence[int]) -> list[int]:
    sizes = list(zip(x.shape[2:], out_size, strict=True))
    if any(size % out for size, out in sizes):
        raise NotImplementedError(
            f"aten.adaptive_max_pool2d needs an input size that {list(out_size)} divides, "
            f"not {list(x.shape[2:])}"
        )
    return [size // out for size, out in sizes]
