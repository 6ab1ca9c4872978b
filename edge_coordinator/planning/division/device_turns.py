"""What a turn in micro-batches takes of each device by itself, by its samples and its share.

A device's micro-batches are alike, and go through five stages one after another: forward, upload,
the server, download, backward. Of m of them the last is done after one has been through all stages
and m - 1 more through the slowest, whichever that is; and backward follows all of forward. So a
turn is the longest of a few forms, each of which is

    fixed_s + size * sample_s + (link_s + size * sample_link_s) / share.

A cluster's turn is no shorter than that of any of its devices, and longer where micro-batches of
several meet at the server.
"""

from dataclasses import dataclass, replace

import numpy as np

from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.latency import PhasesByShare, phase_seconds
from edge_coordinator.planning.overlap import with_empty_device
from profiles.phases import Phase
from profiles.units import Counts, Floats

_STAGES = (Phase.FORWARD, Phase.UPLOAD, Phase.SERVER, Phase.DOWNLOAD, Phase.BACKWARD)
_ENDS = [0, len(_STAGES) - 1]


@dataclass(frozen=True)
class DeviceTurns:
    """Forms of what a turn takes of each device, all [form, device].

    Sizes are in mini-batches of the job, shares are of the whole link.
    """

    fixed_s: Floats
    sample_s: Floats
    """Of one mini-batch's worth of samples."""
    link_s: Floats
    sample_link_s: Floats

    @property
    def parts(self) -> tuple[Floats, Floats, Floats, Floats]:
        """All four."""
        return self.fixed_s, self.sample_s, self.link_s, self.sample_link_s

    @property
    def num_devices(self) -> int:
        """How many devices there are."""
        return int(self.fixed_s.shape[1])

    def without_shorter(self) -> "DeviceTurns":
        """Leave out forms that are nowhere the longest."""
        every = np.stack(self.parts)  # [part, form, device]
        is_below = np.all(every[:, :, np.newaxis] <= every[:, np.newaxis], axis=(0, 3))
        is_later = np.tri(every.shape[1], k=-1, dtype=np.bool_)
        shorter = is_below & (~is_below.T | is_later)  # Of equal ones the first stays.
        return DeviceTurns(*every[:, ~np.any(shorter, axis=1)])

    def is_shorter(self, other: "DeviceTurns") -> bool:
        """Whether no turn takes longer than the other says, whatever samples and shares are."""
        own, others = np.stack(self.parts), np.stack(other.parts)
        is_below = np.all(own[:, :, np.newaxis] <= others[:, np.newaxis], axis=(0, 3))
        return bool(np.all(np.any(is_below, axis=1)))

    def of_devices(self, members: Counts) -> "DeviceTurns":
        """Pick devices, [form, ...]; -1 is the last."""
        return DeviceTurns(*(each[:, members] for each in self.parts))

    def at(self, sizes: Floats, shares: Floats) -> Floats:
        """Seconds of turns, [...]; all but forms' first axis broadcast."""
        links_s = self.link_s + sizes * self.sample_link_s
        turns_s: Floats = (self.fixed_s + sizes * self.sample_s + links_s / shares).max(axis=0)
        return turns_s


@dataclass(frozen=True)
class DeviceStages:
    """What a turn's stages take of each device, however many micro-batches there are."""

    once_s: Floats
    """Of a local epoch, whatever its samples, [fixed or link, stage, device]."""
    sample_s: Floats
    """Of a mini-batch's worth of samples."""
    message_s: Floats
    """Of each micro-batch."""
    models_s: Floats
    """Of a turn, in no stage: models and delays, [mixed or alike, fixed or link, device]."""
    local_epochs: int

    @classmethod
    def of(
        cls, fleet: Fleet, workload: Workload, *, cut: int, once: PhasesByShare | None = None
    ) -> "DeviceStages":
        """Work them out, the empty device last; `once` are of whole mini-batches, if known."""
        batch_sizes = np.full(fleet.num_devices, 2.0 * workload.batch_size)
        once = phase_seconds(fleet, workload, cut=cut) if once is None else once
        parted = phase_seconds(fleet, workload, cut=cut, micro_batches=2)
        doubled = phase_seconds(fleet, workload, cut=cut, batch_sizes=batch_sizes)
        whole_s = _stages(once)
        sample_s, message_s = _stages(doubled) - whole_s, _stages(parted) - whole_s
        every = (whole_s - sample_s - message_s, sample_s, message_s, _models(once))
        once_s, sample_s, message_s, models_s = map(with_empty_device, every)
        return cls(once_s, sample_s, message_s, models_s, workload.local_epochs)

    def without_server(self, sizes: Floats) -> tuple["DeviceStages", float]:
        """Take the server's seconds out, and say what they are of all devices' samples.

        At the least, whoever has them; `sizes` are in mini-batches, [device].
        """
        place, device = _STAGES.index(Phase.SERVER), slice(None, -1)
        once_s, sample_s, message_s = (
            each[0, place, device] for each in (self.once_s, self.sample_s, self.message_s)
        )
        whole_s = self.local_epochs * float((once_s + sizes * sample_s.min() + message_s).sum())
        others = np.array([phase != Phase.SERVER for phase in _STAGES])[:, np.newaxis]
        once_s, sample_s, message_s = (
            others * each for each in (self.once_s, self.sample_s, self.message_s)
        )
        return replace(self, once_s=once_s, sample_s=sample_s, message_s=message_s), whole_s

    def turns(
        self, micro_batches: int, *, messages: int | None = None, is_mixed: bool = False
    ) -> DeviceTurns:
        """Take turns in so many micro-batches, that count as so many messages if not as many.

        Devices of mixed cuts are sent a model each, which divides the link.
        """
        parts, epochs = micro_batches, self.local_epochs
        once_s = self.once_s + (parts if messages is None else messages) * self.message_s
        # All [fixed or sample, fixed or link, stage or form, device].
        stages = np.stack([once_s, self.sample_s])
        whole = stages.sum(axis=2, keepdims=True)
        forms = (whole + (parts - 1) * stages) / parts if parts > 1 else whole
        forms = np.concatenate([forms, stages[:, :, _ENDS].sum(axis=2, keepdims=True)], axis=2)
        forms = epochs * forms
        forms[0] += self.models_s[int(not is_mixed), :, np.newaxis]
        (fixed_s, link_s), (sample_s, sample_link_s) = forms
        return DeviceTurns(fixed_s, sample_s, link_s, sample_link_s)


def _stages(seconds: PhasesByShare) -> Floats:
    """Take seconds of a mini-batch in each stage, [fixed or link, stage, device]."""
    busy_s = (seconds.fixed_s - seconds.delay_s)[[*_STAGES]]
    return np.stack([busy_s, seconds.link_s[[*_STAGES]]])


def _models(seconds: PhasesByShare) -> Floats:
    """Take what is no stage's: models and delays, [mixed or alike, fixed or link, device]."""
    parts_s = np.stack([seconds.fixed_s, seconds.link_s])
    own_s: Floats = parts_s[:, Phase.DISTRIBUTE] + parts_s[:, Phase.MODEL_UPLOAD]
    delays_s = seconds.delay_s[Phase.UPLOAD] + seconds.delay_s[Phase.DOWNLOAD]
    own_s[0] += seconds.local_epochs * delays_s
    # One broadcast has the whole link.
    return np.stack([own_s, own_s + np.outer([1, -1], seconds.link_s[Phase.DISTRIBUTE])])
