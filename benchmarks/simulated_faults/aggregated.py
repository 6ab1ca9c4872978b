"""Turns whose gradients come in two frames: the same for all devices, and what is left of each."""

import numpy as np

from benchmarks.simulated_faults.device import HALF, Weights
from benchmarks.simulated_faults.whole_batches import WholeBatchesJob
from runtime.wire.frames import FrameKind


class AggregatedJob(WholeBatchesJob):
    """One job whose devices have the mean of half of their gradients."""

    aggregated = HALF.shape[0]

    def parted(self, kind: FrameKind, tensor: Weights) -> list[Weights]:
        """Part a gradient into what is the same for all, and the rest."""
        return np.split(tensor, [self.aggregated]) if kind is FrameKind.GRADIENT else [tensor]

    def returned(self, gradients: dict[str, Weights]) -> dict[str, Weights]:
        """Give all the mean of the first half."""
        first = np.add.reduce([each[: self.aggregated] for each in gradients.values()])
        mean = first / np.float32(len(gradients))
        return {d: np.concatenate([mean, own[self.aggregated :]]) for d, own in gradients.items()}
