"""Federated averaging of the device-side models of one cluster."""

from collections.abc import Mapping, Sequence

import numpy as np

from runtime.wire.frames import Tensor


def average(
    weights: Mapping[str, Sequence[Tensor]], sample_counts: Mapping[str, int]
) -> list[Tensor]:
    """Sum over k of |D_k| / sum_j |D_j| times w_k, tensor by tensor, in device-id order.

    `sample_counts` may name devices that have no weights here; the others' shares grow. Sums run
    in float64, so one device's weights come out as they went in. Integers (batch norm's counters)
    are rounded.
    """
    devices = sorted(weights)
    total = sum(sample_counts[device] for device in devices)
    shares = [sample_counts[device] / total for device in devices]
    columns = zip(*(weights[device] for device in devices), strict=True)
    return [_weighted_sum(column, shares) for column in columns]


def _weighted_sum(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    total = np.zeros(tensors[0].shape, dtype=np.float64)
    for tensor, share in zip(tensors, shares, strict=True):
        total += share * tensor.astype(np.float64)
    if np.issubdtype(tensors[0].dtype, np.integer):
        total = np.rint(total)
    return total.astype(tensors[0].dtype)
