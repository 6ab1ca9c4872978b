"""Average pooling and nearest resampling: backward, and the adaptive forms of forward.

What resamples each dimension on its own is a product with a constant matrix per dimension.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from edge_coordinator.onnx_export.decompositions.registry import decomposes
from edge_coordinator.onnx_export.decompositions.windows import Window, per_dimension

aten = torch.ops.aten

Matrix = list[list[float]]


@decomposes(aten.avg_pool2d_backward.default, aten.avg_pool3d_backward.default)
def average_pool_backward(
    gradient: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    _ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """Spread each window's gradient evenly over what it averaged."""
    num_dims = x.dim() - 2
    kernel = per_dimension(kernel, num_dims, 1)
    steps = per_dimension(stride, num_dims, 1) if stride else kernel
    window = Window(kernel, steps, per_dimension(padding, num_dims, 0), [1] * num_dims)
    if divisor is None:
        counts = _counts(window, gradient, x, count_include_pad=count_include_pad)
        share = _divide(gradient, counts)
    else:
        share = gradient / divisor
    columns = share.reshape(x.shape[0] * x.shape[1], 1, *gradient.shape[2:])
    ones = torch.ones([1, 1, *kernel], dtype=x.dtype)
    return window.fold(columns, ones, x.shape[2:]).reshape(x.shape)


def _counts(
    window: Window, gradient: Tensor, x: Tensor, *, count_include_pad: bool
) -> list[list[int]]:
    """How many values each window averages, as factors [dimension][position]."""
    counts = []
    for dim in range(window.num_dims):
        size, before = x.shape[2 + dim], window.padding[dim]
        row = []
        for position in range(gradient.shape[2 + dim]):
            start = position * window.stride[dim] - before
            stop = min(start + window.kernel[dim], size + before)
            row.append(stop - start if count_include_pad else min(stop, size) - max(start, 0))
        counts.append(row)
    return counts


def _divide(gradient: Tensor, counts: Sequence[Sequence[int]]) -> Tensor:
    rows = [[float(count) for count in row] for row in counts]
    if all(len(set(row)) == 1 for row in rows):
        return gradient / math.prod(row[0] for row in rows)
    for dim, row in enumerate(rows):
        shape = [-1] + [1] * (len(rows) - 1 - dim)
        factors = torch.tensor([1.0 / count for count in row], dtype=gradient.dtype)
        gradient = gradient * factors.reshape(shape)
    return gradient


@decomposes(aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default)
def adaptive_average_pool(x: Tensor, out_size: Sequence[int]) -> Tensor:
    """Average over windows that may overlap, one dimension after the other."""
    sizes = zip(x.shape[2:], out_size, strict=True)
    return _resample(x, [_transposed(_average_matrix(size, out)) for size, out in sizes])


@decomposes(
    aten._adaptive_avg_pool2d_backward.default,
    aten._adaptive_avg_pool3d_backward.default,
)
def adaptive_average_pool_backward(gradient: Tensor, x: Tensor) -> Tensor:
    """Spread each window's gradient evenly over what it averaged."""
    sizes = zip(x.shape[2:], gradient.shape[2:], strict=True)
    return _resample(gradient, [_average_matrix(size, out) for size, out in sizes])


@decomposes(aten.upsample_nearest2d_backward.default)
def nearest_upsample_backward(
    gradient: Tensor,
    _output_size: Sequence[int],
    input_size: Sequence[int],
    vertical_scale: float | None = None,
    horizontal_scale: float | None = None,
) -> Tensor:
    """Add up the gradients of all copies of a value."""
    scales = (vertical_scale, horizontal_scale)
    sizes = zip(input_size[2:], gradient.shape[2:], scales, strict=True)
    return _resample(gradient, [_nearest_matrix(*size) for size in sizes])


def _average_matrix(size: int, out: int) -> Matrix:
    """Give [out, size]: what part each value has in each average."""
    matrix = [[0.0] * size for _ in range(out)]
    for row in range(out):
        start, stop = (row * size) // out, -((-(row + 1) * size) // out)
        for column in range(start, stop):
            matrix[row][column] = 1.0 / (stop - start)
    return matrix


def _nearest_matrix(size: int, out: int, scale: float | None) -> Matrix:
    """Give [out, size]: which value each copy is of."""
    ratio = 1.0 / scale if scale else size / out
    matrix = [[0.0] * size for _ in range(out)]
    for row in range(out):
        matrix[row][min(math.floor(row * ratio), size - 1)] = 1.0
    return matrix


def _transposed(matrix: Matrix) -> Matrix:
    return [list(column) for column in zip(*matrix, strict=True)]


def _resample(x: Tensor, matrices: Sequence[Matrix]) -> Tensor:
    for dim, matrix in enumerate(matrices):
        constant = torch.tensor(matrix, dtype=x.dtype)
        if dim == len(matrices) - 1:
            x = torch.matmul(x, constant)
        else:
            x = torch.matmul(x.transpose(2 + dim, -1), constant).transpose(2 + dim, -1)
    return x
