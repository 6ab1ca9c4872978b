"""Norms, running sums and places of maxima, as products, sums and comparisons."""

import torch
from torch import Tensor

from edge_coordinator.onnx_export.decompositions.registry import decomposes

aten = torch.ops.aten


@decomposes(aten.cumsum.default)
def cumulative_sum(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """Multiply by a triangle of ones: devices run no operator that goes along a sequence.

    Whole numbers are summed as float32, exactly below 2^24.
    """
    result = dtype or (x.dtype if x.is_floating_point() else torch.int64)
    size = x.shape[dim]
    triangle = torch.ones(size, size, dtype=torch.float32).triu()
    moved = x.to(torch.float32).movedim(dim, -1)
    return torch.matmul(moved, triangle).movedim(-1, dim).to(result)


@decomposes(aten.linalg_vector_norm.default)
def vector_norm(
    x: Tensor,
    ord: float = 2,  # noqa: A002 - as torch calls it
    dim: list[int] | None = None,
    keepdim: bool = False,  # noqa: FBT002
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Give the Euclidean norm, or the sum of what values are without their signs."""
    if ord not in {1, 2} or dtype is not None:
        raise NotImplementedError(f"aten.linalg_vector_norm of order {ord}")
    dims = dim if dim is not None else list(range(x.dim()))
    if ord == 1:
        return x.abs().sum(dims, keepdim=keepdim)
    return (x * x).sum(dims, keepdim=keepdim).sqrt()


@decomposes(aten.argmax.default)
def place_of_maximum(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:  # noqa: FBT002
    """Find the first of the largest, by comparing: devices run no operator that searches."""
    if dim is None:
        raise NotImplementedError("aten.argmax over all axes")
    shape = [1] * x.dim()
    shape[dim] = x.shape[dim]
    places = torch.arange(x.shape[dim]).reshape(shape)
    others = torch.full_like(places, x.shape[dim])
    return torch.where(x == x.amax(dim, keepdim=True), places, others).amin(dim, keepdim=keepdim)
