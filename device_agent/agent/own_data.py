"""A device's own data during a run: what it trains on in each turn, also where there is ever more.

They grow as a source does that is read again, or as a scenario says of data that are all there.

What was there stays where it was, and new samples follow. A turn names how many samples of the
training part it draws from, the first so many; so a replay of the turn draws the same.
"""

from dataclasses import replace

import numpy as np

from runtime.datasets.samples import Samples
from runtime.datasets.shard import Shard, make_shard
from runtime.datasets.stored import first_of
from runtime.errors import SettingsError
from runtime.wire.commands import Assignment, Join, Ready
from runtime.wire.frames import spec_of
from runtime.wire.names import FeatureNames

_COMPARED = 64
"""Samples of those that were there, by which it is told that they are where they were."""


class OwnData:
    """Samples of one device, and how a job parts them."""

    def __init__(
        self, device: str, samples: Samples, *, grows: bool = False, num_there: int | None = None
    ) -> None:
        """`grows` parts them so that a sample is held out or not whatever comes after it.

        Of `samples`, the first `num_there` are there at the beginning; all, if it is not given.
        """
        self._device = device
        self._all = samples
        self.samples = samples if num_there is None else _first(samples, num_there)
        """Those that are there."""
        self._grows = grows
        self._assignment: Assignment | None = None
        self._whole: Shard | None = None

    def prepare(self, assignment: Assignment) -> Ready:
        """Part them as a job wants it; SettingsError if they do not fit."""
        whole = self._parted(self._all, assignment)
        shard = whole.arrived(len(self.samples)) if self._grows else whole
        self._assignment, self._whole, self.told = assignment, whole, shard
        label, names = spec_of(shard.packed), self.samples.feature_names
        return Ready.model_validate(
            {
                "run": assignment.run,
                "num_samples": len(shard.kept),
                "num_held_out": len(shard.held_out),
                "label_dtype": label.dtype,
                "label_shape": label.shape[1:],
                "class_names": None if assignment.classes else self.samples.class_names,
                "feature_names": FeatureNames.of(names) if names else None,
                "grows": self._grows or None,
            }
        )

    def of_turn(self, join: Join) -> Shard:
        """Give what a turn draws from; what was told of at the start, if it does not say.

        A replay may say more than are there by a scenario: it is given them.
        """
        assert self._whole is not None
        shard = self.told if join.num_samples is None else self._whole.first(join.num_samples)
        return shard.of_batches(join.batch_size)

    @property
    def num_training(self) -> int | None:
        """Samples to train on by now, where they become more; None before there is a job."""
        if not self._grows or self._whole is None:
            return None
        return self._whole.num_kept(len(self.samples))

    def arrive(self, num_there: int) -> int:
        """Have the first so many of the samples that were given; how many of them are new."""
        num_new = num_there - len(self.samples)
        if num_new > 0:
            self.samples = _first(self._all, num_there)
        return max(0, num_new)

    def grow(self, samples: Samples) -> int:
        """Take over what the source holds now; how many samples are new.

        SettingsError, and nothing changes, if what was there has moved or does not fit the job.
        """
        before, num_new = self.samples, len(samples) - len(self.samples)
        if num_new < 0 or not _begins_with(samples, before):
            raise SettingsError(
                f"{self._device}: what was in the data is no longer where it was, so it goes on "
                f"with the {len(before)} samples that it has; new ones have to follow the others "
                "(a folder: ?order=time)"
            )
        if not num_new:
            return 0
        if self._assignment is not None:
            self._whole = self._parted(samples, self._assignment)
        self.samples = self._all = samples
        return num_new

    def _parted(self, samples: Samples, assignment: Assignment) -> Shard:
        return make_shard(self._device, assignment, samples, grows=self._grows)


def _first(samples: Samples, num_samples: int) -> Samples:
    stored = first_of(samples.stored, num_samples)
    return replace(samples, stored=stored, y=samples.y[:num_samples])


def _begins_with(samples: Samples, before: Samples) -> bool:
    """Whether these are at the beginning of those, by all labels and some of the inputs."""
    alike = (samples.sample_shape, samples.class_names) == (before.sample_shape, before.class_names)
    if not alike or not np.array_equal(samples.y[: len(before)], before.y):
        return False
    some = np.unique(np.linspace(0, len(before) - 1, _COMPARED).astype(np.int64))
    ours, theirs = (each.usable(some, among=np.arange(len(before))) for each in (samples, before))
    return np.array_equal(ours[0], theirs[0])
