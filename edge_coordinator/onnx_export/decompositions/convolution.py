"""Backward of a convolution, by the forms that are fast in ONNX Runtime."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from edge_coordinator.onnx_export.decompositions.registry import decomposes
from edge_coordinator.onnx_export.decompositions.windows import Window, per_dimension

aten = torch.ops.aten

# From this many channels on, one matrix product per kernel offset beats one im2col product, and
# a flipped convolution beats ConvTranspose, which ONNX Runtime runs on one thread. Measured.
MANY_CHANNELS = 16


@dataclass(frozen=True)
class _Convolution:
    """`weight_shape` is [out, in per group, *kernel]; the input has in per group x groups."""

    window: Window
    groups: int
    weight_shape: list[int]

    @property
    def is_depthwise(self) -> bool:
        return self.weight_shape[1] == 1 and self.weight_shape[0] == self.groups

    def run(self, x: Tensor, weight: Tensor) -> Tensor:
        w = self.window
        no_padding = [0] * w.num_dims
        y: Tensor = aten.convolution(
            x, weight, None, w.stride, w.padding, w.dilation, False, no_padding, self.groups
        )
        return y

    def transpose(self, x: Tensor, weight: Tensor, output_padding: list[int]) -> Tensor:
        w = self.window
        y: Tensor = aten.convolution(
            x, weight, None, w.stride, w.padding, w.dilation, True, output_padding, self.groups
        )
        return y


@decomposes(aten.convolution_backward.default)
def convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    _bias_sizes: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    _output_padding: list[int],
    groups: int,
    output_mask: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Give the gradients of input, weight and bias, those that `output_mask` asks for."""
    num_dims = x.dim() - 2
    window = Window(
        list(weight.shape[2:]),
        per_dimension(stride, num_dims, 1),
        per_dimension(padding, num_dims, 0),
        per_dimension(dilation, num_dims, 1),
    )
    convolution = _Convolution(window, groups, list(weight.shape))
    of_input = of_weight = of_bias = None
    if output_mask[0]:
        of_input = _input_gradient(convolution, gradient, x, weight, transposed=transposed)
    if output_mask[1]:
        # A transposed convolution's weight is that of the convolution which maps g to x.
        seen, produced = (gradient, x) if transposed else (x, gradient)
        of_weight = _weight_gradient(convolution, seen, produced)
    if output_mask[2]:
        of_bias = gradient.sum([0, *range(2, num_dims + 2)])
    return of_input, of_weight, of_bias


def _input_gradient(
    convolution: _Convolution, gradient: Tensor, x: Tensor, weight: Tensor, *, transposed: bool
) -> Tensor:
    window = convolution.window
    if transposed:
        result = convolution.run(gradient, weight)
        for dim in range(window.num_dims):
            result = aten.slice.Tensor(result, 2 + dim, 0, x.shape[2 + dim])
        return result
    if _flips_well(convolution):
        return _flipped_correlation(convolution, gradient, weight)
    output_padding = []
    for dim, kernel in enumerate(window.kernel):
        reach = (gradient.shape[2 + dim] - 1) * window.stride[dim] - 2 * window.padding[dim]
        reach += window.dilation[dim] * (kernel - 1) + 1
        output_padding.append(x.shape[2 + dim] - reach)
    return convolution.transpose(gradient, weight, output_padding)


def _flips_well(convolution: _Convolution) -> bool:
    window, (num_out, num_in) = convolution.window, convolution.weight_shape[:2]
    if any(step != 1 for step in window.stride):
        return False
    reaches = zip(window.dilation, window.kernel, window.padding, strict=True)
    if any(dilation * (kernel - 1) < padding for dilation, kernel, padding in reaches):
        return False
    dense = convolution.groups == 1 and min(num_out, num_in) >= MANY_CHANNELS
    return dense or convolution.is_depthwise


def _flipped_correlation(convolution: _Convolution, gradient: Tensor, weight: Tensor) -> Tensor:
    window, groups = convolution.window, convolution.groups
    num_out, num_in, *kernel = convolution.weight_shape
    flipped = weight.reshape(groups, num_out // groups, num_in, *kernel).transpose(1, 2)
    flipped = flipped.reshape(groups * num_in, num_out // groups, *kernel)
    if any(size > 1 for size in kernel):
        flipped = flipped.flip([2 + dim for dim in range(window.num_dims)])
    reaches = zip(window.dilation, kernel, window.padding, strict=True)
    padding = [dilation * (size - 1) - before for dilation, size, before in reaches]
    same = Window(window.kernel, window.stride, padding, window.dilation)
    return _Convolution(same, groups, list(flipped.shape)).run(gradient, flipped)


def _weight_gradient(convolution: _Convolution, x: Tensor, gradient: Tensor) -> Tensor:
    if convolution.groups == 1:
        return _dense_weight_gradient(convolution, x, gradient)
    if convolution.is_depthwise:
        return _depthwise_weight_gradient(convolution, x, gradient)
    return _grouped_weight_gradient(convolution, x, gradient)


def _dense_weight_gradient(convolution: _Convolution, x: Tensor, gradient: Tensor) -> Tensor:
    """Multiply what each kernel offset saw with the gradient, sample by sample, and add up.

    Of the two, the gradient is transposed: it is one tensor, where the views are many.
    """
    num_out, num_in, *kernel = convolution.weight_shape
    out_size = list(gradient.shape[2:])
    num_positions, num_offsets = math.prod(out_size), math.prod(kernel)
    views = list(convolution.window.views(x, out_size, fill=0.0))
    columns = gradient.reshape(-1, num_out, num_positions).transpose(1, 2)
    if num_in >= MANY_CHANNELS or num_offsets == 1:
        rows = [view.reshape(-1, num_in, num_positions) for view in views]
        product = torch.stack([torch.matmul(row, columns).sum(0) for row in rows])
    else:
        stacked = torch.cat(views, 1).reshape(-1, num_offsets * num_in, num_positions)
        product = torch.matmul(stacked, columns).sum(0)
    product = product.reshape(num_offsets, num_in, num_out).permute(2, 1, 0)
    return product.reshape(num_out, num_in, *kernel)


def _depthwise_weight_gradient(convolution: _Convolution, x: Tensor, gradient: Tensor) -> Tensor:
    num_out, _, *kernel = convolution.weight_shape
    views = convolution.window.views(x, list(gradient.shape[2:]), fill=0.0)
    summed = [0, *range(2, x.dim())]
    products = [(view * gradient).sum(summed) for view in views]
    return torch.stack(products, 1).reshape(num_out, 1, *kernel)


def _grouped_weight_gradient(convolution: _Convolution, x: Tensor, gradient: Tensor) -> Tensor:
    """Convolve with batch and channels swapped, and with stride and dilation swapped."""
    window, groups = convolution.window, convolution.groups
    num_samples, num_in, *space = x.shape
    swapped = x.reshape(num_samples, groups, num_in // groups, *space).transpose(0, 2)
    swapped = swapped.reshape(num_in // groups, groups * num_samples, *space)
    no_padding = [0] * window.num_dims
    result: Tensor = aten.convolution(
        swapped,
        gradient.transpose(0, 1),
        None,
        window.dilation,
        window.padding,
        window.stride,
        False,
        no_padding,
        groups,
    )
    for dim, size in enumerate(window.kernel):
        result = aten.slice.Tensor(result, 2 + dim, 0, size)
    return result.transpose(0, 1)
