"""A device's own samples: what it trains on, what it keeps for evaluation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.errors import SettingsError
from runtime.messages import Assignment
from runtime.seeding import Key, Purpose, draw_batch, step_key
from runtime.tensors import StepId, Tensor


@dataclass(frozen=True)
class Shard:
    """Samples and packed labels of one device."""

    device: str
    seed: int
    batch_size: int
    x: NDArray[np.float32]
    """[sample, *sample_shape], training part."""
    y: Tensor
    """[sample, *label_shape], in the type that travels."""
    held_out_x: NDArray[np.float32]
    held_out_y: Tensor

    def draw(self, step: StepId) -> tuple[NDArray[np.float32], Tensor]:
        """Mini-batch of a step: the same step gives the same batch."""
        chosen = draw_batch(
            len(self.x),
            self.batch_size,
            seed=self.seed,
            device=self.device,
            round_=step.round,
            epoch=step.epoch,
        )
        return self.x[chosen], self.y[chosen]

    def dropout_key(self, step: StepId) -> Key:
        """Address of a step's dropout masks."""
        return step_key(
            Purpose.DROPOUT,
            seed=self.seed,
            device=self.device,
            round_=step.round,
            epoch=step.epoch,
        )


def make_shard(device: str, assignment: Assignment, x: NDArray[np.float32], y: Tensor) -> Shard:
    """Split a device's samples as the job wants it; SettingsError when they do not fit the job."""
    if len(x) == 0:
        raise SettingsError(f"device {device} has no samples; give it data or leave it out")
    order = np.random.default_rng(
        step_key(Purpose.HELD_OUT, seed=assignment.seed, device=device, round_=0, epoch=0)
    ).permutation(len(x))
    num_held_out = min(int(len(x) * assignment.held_out), len(x) - 1)
    held_out, kept = order[:num_held_out], np.sort(order[num_held_out:])
    held_out = held_out[: assignment.max_evaluation_samples]
    packed = pack_labels(y, num_classes=assignment.num_classes, device=device)
    return Shard(
        device=device,
        seed=assignment.seed,
        batch_size=assignment.batch_size,
        x=np.ascontiguousarray(x[kept], dtype=np.float32),
        y=packed[kept],
        held_out_x=np.ascontiguousarray(x[held_out], dtype=np.float32),
        held_out_y=packed[held_out],
    )


def pack_labels(y: Tensor, *, num_classes: int | None, device: str) -> Tensor:
    """Labels in the smallest type that holds them; targets that are no classes as float32."""
    if not np.issubdtype(y.dtype, np.integer):
        if num_classes is not None:
            raise SettingsError(
                f"device {device} has labels of type {y.dtype}; the job's are whole numbers "
                f"below {num_classes}"
            )
        return y.astype("<f4")
    if num_classes is None:
        return y.astype("<i8")
    if y.size and not 0 <= int(y.min()) <= int(y.max()) < num_classes:
        raise SettingsError(
            f"device {device} has labels from {y.min()} to {y.max()}; "
            f"the job has {num_classes} classes, numbered from 0"
        )
    return y.astype("|u1" if num_classes <= 0x100 else "<u2" if num_classes <= 0x10000 else "<i8")
