"""What a device does in a step beside its engine's own arithmetic, whoever plays the device."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.datasets.shard import Shard
from runtime.errors import DivergedError
from runtime.seeding import Key
from runtime.wire.commands import Clip
from runtime.wire.frames import StepId, Tensor


class WholeNetwork(Protocol):
    """A network that is trained on the device as a whole."""

    def train(
        self,
        x: NDArray[np.float32],
        y: Tensor,
        *,
        dropout_key: Key,
        learning_rate: float,
        clip: Clip | None,
    ) -> float:
        """Forward, loss, backward and update; the loss."""
        ...

    def tensors(self) -> list[Tensor]:
        """Copies of its weights."""
        ...


def check_finite(what: str, tensors: Sequence[Tensor]) -> None:
    """DivergedError for an answer that would spoil the whole cluster's step."""
    if not all(np.isfinite(tensor).all() for tensor in tensors if tensor.dtype.kind == "f"):
        raise DivergedError(
            f"its {what} are no longer finite numbers: training diverged, so take a lower learning "
            "rate, or a batch normalisation on the device was given a single sample"
        )


def train_locally(
    network: WholeNetwork,
    shard: Shard,
    last: StepId,
    *,
    local_epochs: int,
    learning_rate: float,
    clip: Clip | None,
) -> tuple[Tensor, ...]:
    """Train a whole network for some local epochs; its weights, and the mean loss at the end.

    `last` is the step of the last local epoch.
    """
    losses = []
    for epoch in range(local_epochs):
        step = StepId(last.run, last.round, last.cluster, epoch)
        x, y = shard.draw(step)
        losses.append(
            network.train(
                x,
                y,
                dropout_key=shard.dropout_key(step),
                learning_rate=learning_rate,
                clip=clip,
            )
        )
    answer = (*network.tensors(), np.array(np.mean(losses), dtype=np.float32))
    check_finite("weights", answer)
    return answer
