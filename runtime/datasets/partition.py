"""Which device holds which samples: alike on all devices, or skewed on purpose.

Every function is a pure function of its arguments and its seed, so that an agent can work out
its own shard from the job alone. Parts are disjoint, sorted and never empty.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import SettingsError

Indices = NDArray[np.int64]

KNOWN_PARTITIONS = "iid, classes:2 (two classes on each device) or dirichlet:0.5"
MAX_DRAWS = 100
BALANCING_STEPS = 100


def partition(labels: NDArray[Any], spec: str, *, num_devices: int, seed: int) -> list[Indices]:
    """Share samples out to devices: [device] arrays of sample indices.

    `iid` shuffles and deals evenly. `classes:k` gives every device samples of exactly k classes,
    and every class to some device as soon as num_devices * k classes suffice; sizes are as even
    as the class sizes allow. `dirichlet:alpha` shares each class out by proportions drawn from a
    Dirichlet distribution; a small alpha is a large skew. Raises SettingsError when a device
    would get nothing.
    """
    if num_devices < 1:
        raise SettingsError(f"cannot share data out to {num_devices} devices")
    if len(labels) < num_devices:
        raise _nothing_left(len(labels), num_devices, f"there are only {len(labels)} samples")
    kind, _, value = spec.partition(":")
    generator = np.random.default_rng((_nonnegative(seed), num_devices))
    if spec == "iid":
        parts = np.array_split(generator.permutation(len(labels)), num_devices)
    elif kind == "classes" and value.isdecimal():
        parts = _by_classes(_check_classes(labels, spec), int(value), num_devices, generator)
    elif kind == "dirichlet":
        alpha = _read_alpha(spec, value)
        parts = _by_dirichlet(_check_classes(labels, spec), alpha, num_devices, generator)
    else:
        raise SettingsError(f"no data partition {spec!r}; there are {KNOWN_PARTITIONS}")
    return [np.sort(part).astype(np.int64) for part in parts]


def class_counts(
    labels: NDArray[Any], parts: Sequence[Indices], *, num_classes: int
) -> NDArray[np.int64]:
    """Count the samples of each class on each device, [device, class]."""
    counts = [np.bincount(labels[part], minlength=num_classes) for part in parts]
    return np.array(counts, dtype=np.int64).reshape(len(parts), num_classes)


def _by_classes(
    labels: Indices, classes_per_device: int, num_devices: int, generator: np.random.Generator
) -> list[Indices]:
    present, class_of, class_sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if not 1 <= classes_per_device <= len(present):
        raise SettingsError(
            f"classes:{classes_per_device}: the data has {len(present)} classes; a device can "
            f"hold samples of 1 to {len(present)} of them"
        )
    holds = _deal_classes(classes_per_device, num_devices, len(present), generator)
    for holders, size, label in zip(holds.T, class_sizes, present, strict=True):
        if holders.sum() > size:
            raise _nothing_left(
                np.flatnonzero(holders)[size],
                num_devices,
                f"class {label} has {size} samples for {holders.sum()} devices",
            )
    sizes = _even_sizes(holds, class_sizes)
    parts: list[list[Indices]] = [[] for _ in range(num_devices)]
    for index in range(len(present)):
        members = generator.permutation(np.flatnonzero(class_of == index))
        ends = np.cumsum(sizes[:, index])
        # A class that no device holds is left out.
        shares = np.split(members[: ends[-1]], ends[:-1])
        for part, share in zip(parts, shares, strict=True):
            part.append(share)
    return [np.concatenate(part) for part in parts]


def _deal_classes(
    classes_per_device: int, num_devices: int, num_classes: int, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Which device holds which class, [device, class]: each takes those with fewest holders."""
    holds = np.zeros((num_devices, num_classes), dtype=bool)
    for device in range(num_devices):
        tie_breaks = generator.permutation(num_classes)
        order = np.lexsort((tie_breaks, holds.sum(axis=0)))
        holds[device, order[:classes_per_device]] = True
    return holds


def _even_sizes(holds: NDArray[np.bool_], class_sizes: Indices) -> Indices:
    """Share the samples of each class out, [device, class], with devices as even as can be.

    Rows and columns are scaled in turn to the size of a device and of a class (iterative
    proportional fitting); then whole numbers are dealt, one to every holder first.
    """
    used_sizes = np.where(holds.any(axis=0), class_sizes, 0)
    wanted = used_sizes.sum() / len(holds)
    shares = holds.astype(np.float64)
    for _ in range(BALANCING_STEPS):
        shares *= wanted / shares.sum(axis=1, keepdims=True)
        shares *= used_sizes / np.maximum(shares.sum(axis=0), 1e-12)
        # A share of next to nothing would never grow again.
        shares = np.where(holds, np.maximum(shares, 1e-6), 0)
    sizes = holds.astype(np.int64)
    for index in np.flatnonzero(used_sizes):
        spare = class_sizes[index] - sizes[:, index].sum()
        weights = np.maximum(shares[:, index] - sizes[:, index], 0)
        weights = weights if weights.sum() > 0 else holds[:, index].astype(np.float64)
        ends = np.round(np.cumsum(weights) / weights.sum() * spare).astype(np.int64)
        sizes[:, index] += np.diff(ends, prepend=0)
    return sizes


def _by_dirichlet(
    labels: Indices, alpha: float, num_devices: int, generator: np.random.Generator
) -> list[Indices]:
    members_of = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(MAX_DRAWS):
        shares = []
        for members in members_of:
            proportions = generator.dirichlet(np.full(num_devices, alpha))
            ends = np.round(np.cumsum(proportions)[:-1] * len(members)).astype(np.int64)
            shares.append(np.split(generator.permutation(members), ends))
        parts = [np.concatenate(device_shares) for device_shares in zip(*shares, strict=True)]
        empty = [device for device, part in enumerate(parts) if len(part) == 0]
        if not empty:
            return parts
    reason = f"none of {MAX_DRAWS} draws of dirichlet:{alpha:g} reached every device"
    raise _nothing_left(empty[0], num_devices, f"{reason}; take a larger alpha or more data")


def _check_classes(labels: NDArray[Any], spec: str) -> Indices:
    if labels.dtype.kind != "i" or labels.ndim != 1:
        raise SettingsError(f"partition {spec} needs class labels; for other targets there is iid")
    return labels


def _read_alpha(spec: str, value: str) -> float:
    try:
        alpha = float(value)
    except ValueError:
        alpha = 0.0
    if not 0 < alpha < np.inf:
        raise SettingsError(f"data partition {spec!r} needs a number above 0, as dirichlet:0.5")
    return alpha


def _nonnegative(seed: int) -> int:
    if seed < 0:
        raise SettingsError(f"seed is {seed}; it has to be 0 or more")
    return seed


def _nothing_left(device: int, num_devices: int, why: str) -> SettingsError:
    return SettingsError(f"device {device} of {num_devices} would get no samples: {why}")
