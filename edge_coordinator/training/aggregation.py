"""What becomes one device-side model: how the devices' models of a cluster are put together.

`mean` is the paper's, and one device can move it anywhere. The others bound what a minority can do,
at the price of what honest devices differ in. All go tensor by tensor, in device-id order, in
float64; integers (batch norm's counters) are rounded.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_coordinator.training.averaging import average
from runtime.errors import SettingsError
from runtime.plugins import described, import_factory
from runtime.wire.frames import Tensor

Models = Mapping[str, Sequence[Tensor]]
"""Device id to its device-side model's tensors."""


class Aggregate(Protocol):
    """What becomes of the devices' models; a function of the user's own may do so.

    It must depend on nothing else, so that a rerun ends in the same bits.
    """

    def __call__(
        self, models: Models, sample_counts: Mapping[str, int], before: Sequence[Tensor], /
    ) -> list[Tensor]:
        """Give one model, tensor by tensor in the shapes and types that they have.

        `sample_counts` has |D_k| of each device, `before` is the model that they were given. After
        the weights and buffers come the optimiser's slots, where these travel.
        """
        ...


def aggregation(name: str, *, trim: float, base_dir: Path = Path()) -> Aggregate:
    """Choose an aggregation, or import that of the user; `trim` is of `trimmed_mean`."""
    if ":" in name:
        return _OwnAggregate(name, import_factory(name, base_dir=base_dir))
    choices: dict[str, Aggregate] = {
        "mean": mean,
        "clipped": clipped,
        "trimmed_mean": partial(trimmed_mean, trim=trim),
        "median": median,
    }
    return choices[name]


class _OwnAggregate:
    """An aggregation of the user's own; SettingsError for what it gives if that is no model."""

    def __init__(self, name: str, function: Aggregate) -> None:
        self._name, self._function = name, function

    def __call__(
        self, models: Models, sample_counts: Mapping[str, int], before: Sequence[Tensor], /
    ) -> list[Tensor]:
        try:
            found = [np.asarray(each) for each in self._function(models, sample_counts, before)]
        except Exception as error:  # It is the user's own function.
            raise SettingsError(
                f"the aggregation {self._name} failed: {described(error)}"
            ) from error
        given, wanted = ([each.shape for each in tensors] for tensors in (found, before))
        if given != wanted:
            raise SettingsError(
                f"the aggregation {self._name} gave {len(given)} tensors {given[:3]}…; it has to "
                f"give {len(wanted)}, of the shapes {wanted[:3]}…"
            )
        if not all(np.isfinite(each).all() for each in found):
            raise SettingsError(
                f"the aggregation {self._name} gave numbers that are not finite (NaN or infinity)"
            )
        return [each.astype(like.dtype) for each, like in zip(found, before, strict=True)]


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
