"""Layers that some devices of a cluster train themselves, and the server for the others.

Where devices cut at different layers, all up to the deepest cut are the device-side model of the
cluster, and the server trains those layers of it that a device leaves to it: one copy for all the
devices that do, on the mean of their gradients, at the devices' rate and with their optimiser. So
that copy is what theirs would be on average. See docs/decisions/cut-by-device.md.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import nn

from edge_coordinator.training.aggregation import Aggregate
from edge_coordinator.training.cuts import CutsOfTurn, DeviceParts
from runtime.models.sequence import Network
from runtime.models.side import Side
from runtime.wire.frames import Tensor
from runtime.wire.micro_batches import Rows

Sizes = Mapping[str, int | Rows]
"""Samples of each device's mini-batch, or which rows of it, in device-id order."""
Run = Callable[[nn.Module, torch.Tensor, Sizes], torch.Tensor]
"""Runs layers on the samples of these devices."""


class MiddleLayers:
    """The server's copies of the layers between the shallowest and the deepest cut of a turn."""

    def __init__(
        self,
        network: Network,
        task: CutsOfTurn,
        *,
        side_of: Callable[[Network], Side],
        parts: DeviceParts,
        before: Sequence[Tensor],
        bring_home: Callable[[], None],
    ) -> None:
        """`side_of` makes layers a side that learns as a device's does.

        `before` is the cluster's device-side model, of which devices have `parts`, and `bring_home`
        has it on the processor.
        """
        self._task = task
        self.before = before
        self.bring_home = bring_home
        self.parts = parts
        self.sides = {
            start: side_of(network.part(start, stop)) for start, stop in pairwise(task.in_order)
        }
        """By the cut that they begin after, up to the next."""
        self.learning_cuts = {
            cut
            for cut in task.in_order
            if any(each.requires_grad for each in network.part(0, cut).parameters())
        }
        """Those that something below learns at."""

    @property
    def cuts(self) -> Mapping[str, int]:
        """Where each device cuts."""
        return self._task.cuts

    @property
    def trainable(self) -> list[nn.Parameter]:
        """Parameters that learn, in order."""
        return [parameter for side in self.sides.values() for parameter in side.trainable]

    def lifted(
        self, entered: Mapping[int | None, torch.Tensor], sizes: Sizes, run: Run
    ) -> torch.Tensor:
        """Run what enters at each cut up to the deepest; all samples, in device-id order.

        `entered` are the joined smashed data of the devices that cut there.
        """
        parts: dict[str, torch.Tensor] = {}
        for cut in self._task.in_order:
            if cut in entered:
                own = [device for device in sizes if self._task.cuts[device] == cut]
                parts |= _split(entered[cut], own, sizes)
            devices = sorted(parts)
            if cut == self._task.deepest:
                break
            if devices:
                of_these = {device: sizes[device] for device in devices}
                outputs = run(self.sides[cut].layers, _joined(parts, devices), of_these)
                parts = _split(outputs, devices, sizes)
        return _joined(parts, devices)

    def step(self, present: Collection[str], *, is_mean_of_present: bool) -> None:
        """Update, from gradients of the cluster's mean loss; `present` are the devices in it.

        That is the mean over those that are left, or over all that were expected.
        """
        task = self._task
        made_up = len(present) / len(task.cuts) if is_mean_of_present and task.rate_by_size else 1.0
        for cut, side in self.sides.items():
            num_devices = sum(task.cuts[device] <= cut for device in present)
            if not num_devices:
                side.forget_gradients()
                continue
            for parameter in side.trainable:
                if parameter.grad is not None:
                    parameter.grad *= made_up / num_devices
            side.step(task.learning_rate, task.clip)


class DeviceSideModel:
    """A cluster's device-side model in one turn, with what of it the server trains for some."""

    def __init__(self, side: Side, middle: MiddleLayers | None = None) -> None:
        """`middle` has the layers that some devices leave to the server; none if all cut alike."""
        self._side = side
        self._middle = middle

    def tensors(self) -> list[Tensor]:
        """Copies of its tensors, carried optimiser slots at the end."""
        return self._side.tensors() if self._middle is None else [*self._middle.before]

    def frozen(self) -> list[Tensor]:
        """Parameters that do not learn, which are not in `tensors`."""
        return self._side.frozen()

    def parts(self) -> list[str]:
        """What each of `tensors` is."""
        return self._side.parts()

    def aggregate(
        self,
        weights: Mapping[str, Sequence[Tensor]],
        sample_counts: Mapping[str, int],
        *,
        by: Aggregate,
    ) -> None:
        """Take over what becomes of the devices' models and the server's part of them."""
        before = self.tensors()
        if self._middle is not None:
            self._middle.bring_home()
            weights = self._middle.parts.completed(weights, self._side.tensors())
        self._side.load(by(weights, sample_counts, before))

    @property
    def learns(self) -> bool:
        """Whether anything of it does."""
        return bool(self._side.trainable)

    def learns_below(self, cut: int | None) -> bool:
        """Whether a gradient is wanted at a cut, as `by_cut` has it."""
        if self._middle is None or cut is None:
            return self.learns
        return cut in self._middle.learning_cuts

    @property
    def trainable_here(self) -> Sequence[nn.Parameter]:
        """Parameters that the server trains for some devices."""
        return self._middle.trainable if self._middle else []

    def by_cut(self, devices: Iterable[str]) -> Mapping[int | None, list[str]]:
        """Group devices, in order, by where they cut; None where all cut alike."""
        found: dict[int | None, list[str]] = {}
        for device in sorted(devices):
            cut = self._middle.cuts[device] if self._middle else None
            found.setdefault(cut, []).append(device)
        return found

    def lifted(
        self, entered: Mapping[int | None, torch.Tensor], sizes: Sizes, run: Run
    ) -> torch.Tensor:
        """Bring what was sent at each cut up to the deepest; all samples, in device-id order."""
        if self._middle is not None:
            return self._middle.lifted(entered, sizes, run)
        (all_of_them,) = entered.values()
        return all_of_them

    def step(self, present: Collection[str], *, is_mean_of_present: bool) -> None:
        """Update what the server trains of it, if anything; see `MiddleLayers.step`."""
        if self._middle is not None:
            self._middle.step(present, is_mean_of_present=is_mean_of_present)


def _split(joined: torch.Tensor, devices: Sequence[str], sizes: Sizes) -> dict[str, torch.Tensor]:
    parts = torch.split(joined, [_count(sizes[device]) for device in devices])
    return dict(zip(devices, parts, strict=True))


def _joined(parts: Mapping[str, torch.Tensor], devices: Sequence[str]) -> torch.Tensor:
    return torch.cat([parts[device] for device in devices])


def _count(size: int | Rows) -> int:
    return size if isinstance(size, int) else len(size)
