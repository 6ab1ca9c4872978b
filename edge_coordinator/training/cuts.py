"""Where the devices of a turn cut, and whose the tensors of their device-side model are."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from runtime.wire.commands import Clip
from runtime.wire.frames import Tensor

Own = TypeVar("Own")


@dataclass(frozen=True)
class CutsOfTurn:
    """Where the devices of a turn cut, and how the layers between their cuts learn."""

    cuts: Mapping[str, int]
    learning_rate: float
    """The devices'."""
    rate_by_size: bool
    """Whether it is |K_m| times another: gradients make up for devices that are lost."""
    clip: Clip | None = None
    """Of what a device would have of the gradients."""

    @property
    def deepest(self) -> int:
        """Layers of the cluster's device-side model."""
        return max(self.cuts.values())

    @property
    def in_order(self) -> list[int]:
        """The cuts that there are, the shallowest first."""
        return sorted(set(self.cuts.values()))


@dataclass(frozen=True)
class DeviceParts:
    """Which tensors of a cluster's device-side model are a device's, where not all have all."""

    places: Mapping[str, Sequence[int]]
    """Device id to the places of its own; whoever is not in it has all."""

    def of(self, device: str, tensors: Sequence[Own]) -> Sequence[Own]:
        """Take a device's tensors, or what is known of each, out of the cluster's."""
        if device not in self.places:
            return tensors
        return [tensors[place] for place in self.places[device]]

    def groups(self, devices: Iterable[str]) -> list[list[str]]:
        """Who is given one model together: all, or each device its own."""
        return [[device] for device in devices] if self.places else [[*devices]]

    def completed(
        self, models: Mapping[str, Sequence[Tensor]], by: Sequence[Tensor]
    ) -> dict[str, Sequence[Tensor]]:
        """Give each device's model the layers that the server has trained for it."""
        whole: dict[str, Sequence[Tensor]] = {}
        for device, own in models.items():
            given = dict(zip(self.places.get(device, range(len(by))), own, strict=True))
            whole[device] = [given.get(place, tensor) for place, tensor in enumerate(by)]
        return whole


ALIKE = DeviceParts({})
"""All devices have the whole device-side model."""


def device_parts(
    cuts: Mapping[str, int], names_below: Callable[[int], Sequence[str]]
) -> DeviceParts:
    """Find which tensors of the device side at the deepest of some cuts are each device's.

    `names_below` names those of the device side at a cut.
    """
    names = {cut: names_below(cut) for cut in set(cuts.values())}
    places = {name: index for index, name in enumerate(names[max(names)])}
    own = {cut: [places[name] for name in names[cut]] for cut in names}
    return DeviceParts({device: own[cut] for device, cut in cuts.items()})
