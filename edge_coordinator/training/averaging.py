"""Federated averaging of the device-side models of one cluster."""

from collections.abc import Mapping, Sequence
from statistics import median_low

import numpy as np

from runtime.wire.frames import Tensor

MOST_CLAIMED = 10
"""Times the median of the others: a device counts as no more, however much data it has."""


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


def believed_counts(claimed: Mapping[str, int]) -> dict[str, int]:
    """Give what each device's |D_k| counts as, by what all devices of the run claim.

    Nobody sees how much data a device has: what it really sends is a mini-batch a local epoch, as
    all do. So no device counts as more than `MOST_CLAIMED` times the median of the others' claims.
    One that has more counts as that much: a lower count would take nothing from a liar, who may
    claim just so much, and would cost an honest device its data.
    """
    if not claimed:
        return {}
    # Whoever claims so much stands above the middle of all, which is then the others' median too.
    middle = median_low(claimed.values())
    most = MOST_CLAIMED * middle
    return {device: min(count, most) for device, count in claimed.items()}


def doubts(claimed: Mapping[str, int], believed: Mapping[str, int]) -> dict[str, str]:
    """Say of each device that is not believed what its number of samples counts as."""
    return {
        device: f"{device} says that it has {claimed[device]} samples, more than {MOST_CLAIMED} "
        f"times as many as most others; it counts as {count}"
        for device, count in believed.items()
        if count != claimed[device]
    }


def _weighted_sum(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    total = np.zeros(tensors[0].shape, dtype=np.float64)
    for tensor, share in zip(tensors, shares, strict=True):
        total += share * tensor.astype(np.float64)
    if np.issubdtype(tensors[0].dtype, np.integer):
        total = np.rint(total)
    return total.astype(tensors[0].dtype)
