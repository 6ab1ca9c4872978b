"""What becomes one device-side model: how the devices' models of a cluster are put together.

`mean` is the paper's, and one device can move it anywhere. The others bound what a minority can do,
at the price of what honest devices differ in. All go tensor by tensor, in device-id order, in
float64; integers (batch norm's counters) are rounded.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_coordinator.training.averaging import average
from runtime.wire.frames import Tensor

AggregationName = Literal["mean", "clipped", "trimmed_mean", "median"]
Models = Mapping[str, Sequence[Tensor]]
"""Device id to its device-side model's tensors."""
Aggregate = Callable[[Models, Mapping[str, int], Sequence[Tensor]], list[Tensor]]
"""Takes the devices' models, |D_k| of each, and the model that they were given."""


def aggregation(name: AggregationName, *, trim: float) -> Aggregate:
    """Choose an aggregation; `trim` is of `trimmed_mean`."""
    choices: dict[AggregationName, Aggregate] = {
        "mean": mean,
        "clipped": clipped,
        "trimmed_mean": partial(trimmed_mean, trim=trim),
        "median": median,
    }
    return choices[name]


def mean(
    models: Models,
    sample_counts: Mapping[str, int],
    before: Sequence[Tensor],  # noqa: ARG001 - all aggregations are called alike
) -> list[Tensor]:
    """Average by |D_k|.

    McMahan, Moore, Ramage, Hampson, Agüera y Arcas: Communication-Efficient Learning of Deep
    Networks from Decentralized Data, AISTATS 2017.
    """
    return average(models, sample_counts)


def clipped(
    models: Models, sample_counts: Mapping[str, int], before: Sequence[Tensor]
) -> list[Tensor]:
    """Average by |D_k| of updates no longer than their median: centred clipping, one step.

    Karimireddy, He, Jaggi: Learning from History for Byzantine Robust Optimization, ICML 2021. An
    update is a model less the one that the devices were given. Each tensor is clipped by itself,
    since weights, batch norm's statistics and optimiser slots are of different sizes.
    """
    starts = [tensor.astype(np.float64) for tensor in before]
    updates = {
        device: [each.astype(np.float64) - start for each, start in zip(model, starts, strict=True)]
        for device, model in models.items()
    }
    lengths = {device: _lengths(own) for device, own in updates.items()}
    longest = np.median(list(lengths.values()), axis=0)  # [tensor]
    short = {
        device: [
            update * min(1.0, most / length) if length else update
            for update, length, most in zip(own, lengths[device], longest, strict=True)
        ]
        for device, own in updates.items()
    }
    moves = average(short, sample_counts)
    return [
        _as(start + move.astype(np.float64), like)
        for start, move, like in zip(starts, moves, before, strict=True)
    ]


def trimmed_mean(
    models: Models,
    sample_counts: Mapping[str, int],  # noqa: ARG001
    before: Sequence[Tensor],  # noqa: ARG001
    *,
    trim: float,
) -> list[Tensor]:
    """Mean of each coordinate without its largest and smallest values; every device counts one.

    Yin, Chen, Ramchandran, Bartlett: Byzantine-Robust Distributed Learning: Towards Optimal
    Statistical Rates, ICML 2018. `trim` is the fraction left out at each end, rounded up, as long
    as something is left: of three devices one at each end.
    """
    num_out = min(ceil(trim * len(models)), (len(models) - 1) // 2)

    def centre(stacked: NDArray[np.float64]) -> NDArray[np.float64]:
        kept = np.sort(stacked, axis=0)[num_out : len(stacked) - num_out]
        return np.asarray(kept.mean(axis=0))

    return _by_coordinate(models, centre)


def median(
    models: Models,
    sample_counts: Mapping[str, int],  # noqa: ARG001
    before: Sequence[Tensor],  # noqa: ARG001
) -> list[Tensor]:
    """Median of each coordinate; every device counts one.

    Yin, Chen, Ramchandran, Bartlett, as `trimmed_mean`.
    """
    return _by_coordinate(models, lambda stacked: np.asarray(np.median(stacked, axis=0)))


def _by_coordinate(
    models: Models, centre: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> list[Tensor]:
    """Put the tensors of all devices, [device, ...], through `centre` one after another."""
    columns = zip(*(models[device] for device in sorted(models)), strict=True)
    return [_as(centre(np.stack(column).astype(np.float64)), column[0]) for column in columns]


def _lengths(tensors: Sequence[NDArray[np.float64]]) -> list[float]:
    return [float(np.linalg.norm(tensor)) for tensor in tensors]


def _as(values: NDArray[np.float64], like: Tensor) -> Tensor:
    if np.issubdtype(like.dtype, np.integer):
        values = np.rint(values)
    return values.astype(like.dtype)
