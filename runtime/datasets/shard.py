"""A device's own samples: what it trains on, what it keeps for evaluation."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runtime.datasets.normalise import normalised
from runtime.datasets.samples import Indices, Samples
from runtime.errors import SettingsError
from runtime.seeding import Key, Purpose, draw_batch, step_key
from runtime.wire.commands import Assignment
from runtime.wire.frames import StepId, Tensor


@dataclass(frozen=True)
class Shard:
    """Which of a device's samples it trains on, and which it holds out; nothing is copied."""

    device: str
    seed: int
    batch_size: int
    samples: Samples
    """All that the device has."""
    packed: Tensor
    """[sample, *label_shape], the labels of all of them in the type that travels."""
    kept: Indices
    """To train on."""
    held_out: Indices

    @property
    def y(self) -> Tensor:
        """Labels of the training part."""
        return self.packed[self.kept]

    @property
    def num_drawn(self) -> int:
        """Samples of each of its mini-batches."""
        return min(self.batch_size, len(self.kept))

    def of_batches(self, batch_size: int | None) -> "Shard":
        """Draw mini-batches of another size, if one is given."""
        return self if batch_size is None else replace(self, batch_size=batch_size)

    def first(self, num_samples: int) -> "Shard":
        """Train on the first so many alone; SettingsError if there are fewer."""
        if num_samples > len(self.kept):
            raise SettingsError(
                f"device {self.device} has {len(self.kept)} samples to train on, and the turn was "
                f"planned with {num_samples}"
            )
        return replace(self, kept=self.kept[:num_samples])

    def arrived(self, num_samples: int) -> "Shard":
        """Have only the first so many of all samples, of data that grow: to train on, held out."""
        kept, held_out = (part[part < num_samples] for part in (self.kept, self.held_out))
        return replace(self, kept=kept, held_out=held_out)

    def num_kept(self, num_samples: int) -> int:
        """How many of the first so many of all samples are to train on, of data that grow."""
        return int(np.searchsorted(self.kept, num_samples))

    def batch(self, num_samples: int) -> NDArray[np.float32]:
        """Inputs of the first so many samples of the training part."""
        return self.samples.usable(self.kept[:num_samples], among=self.kept)[0]

    def draw(self, step: StepId) -> tuple[NDArray[np.float32], Tensor]:
        """Mini-batch of a step: the same step gives the same batch."""
        chosen = draw_batch(
            len(self.kept),
            self.batch_size,
            seed=self.seed,
            device=self.device,
            round_=step.round,
            epoch=step.epoch,
        )
        key = self._key(Purpose.AUGMENTATION, step)
        x, rows = self.samples.usable(self.kept[chosen], among=self.kept, key=key)
        return x, self.packed[rows]

    def evaluation(self) -> tuple[NDArray[np.float32], Tensor]:
        """Inputs and labels of what is held out."""
        x, rows = self.samples.usable(self.held_out, among=self.held_out)
        return x, self.packed[rows]

    def dropout_key(self, step: StepId) -> Key:
        """Address of a step's dropout masks."""
        return self._key(Purpose.DROPOUT, step)

    def _key(self, purpose: Purpose, step: StepId) -> Key:
        return step_key(
            purpose, seed=self.seed, device=self.device, round_=step.round, epoch=step.epoch
        )


def in_order_of_arrival(device: str, samples: Samples, order: str, *, seed: int) -> Samples:
    """Put a device's samples in the order in which it is to get them: as they are, or drawn."""
    if order == "source":
        return samples
    key = step_key(Purpose.ARRIVAL, seed=seed, device=device, round_=0, epoch=0)
    return samples.take(np.random.default_rng(key).permutation(len(samples)))


def make_shard(
    device: str, assignment: Assignment, samples: Samples, *, grows: bool = False
) -> Shard:
    """Split a device's samples as the job wants it; SettingsError when they do not fit the job.

    Where they grow, each is held out or not by an address of its own: those that follow change
    nothing of those before.
    """
    num_samples = len(samples)
    if num_samples == 0:
        raise SettingsError(f"device {device} has no samples; give it data or leave it out")
    fitting = _in_the_jobs_classes(samples, assignment, device=device)
    fitting = normalised(fitting, assignment.normalisation, where=f"device {device}")
    generator = np.random.default_rng(
        step_key(Purpose.HELD_OUT, seed=assignment.seed, device=device, round_=0, epoch=0)
    )
    if grows:
        is_held_out = generator.random(num_samples) < assignment.held_out
        is_held_out[0] = False  # Something is to be trained on.
        held_out, kept = np.flatnonzero(is_held_out), np.flatnonzero(~is_held_out)
    else:
        order = generator.permutation(num_samples)
        num_held_out = min(int(num_samples * assignment.held_out), num_samples - 1)
        held_out, kept = order[:num_held_out], np.sort(order[num_held_out:])
    return Shard(
        device=device,
        seed=assignment.seed,
        batch_size=assignment.batch_size,
        samples=fitting,
        packed=pack_labels(fitting.y, num_classes=assignment.num_classes, device=device),
        kept=kept,
        held_out=held_out[: assignment.max_evaluation_samples],
    )


def _in_the_jobs_classes(samples: Samples, assignment: Assignment, *, device: str) -> Samples:
    """Number the labels as the job does; as they are if its classes have no names."""
    if assignment.classes is None:
        return samples
    return samples.in_classes(
        assignment.classes,
        where=f"device {device}",
        numbers_count=bool(assignment.numbers_count_classes),
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
