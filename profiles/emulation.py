"""Emulated devices: how much slower than this machine each computes, and what its link carries."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from profiles.stated_device import StatedDevice
from profiles.stated_link import StatedLink, class_with_place
from profiles.units import BITS_PER_BYTE

EMULATED = ("uniform", "mixed", "one-straggler", "fading")
"""Scenarios that come with the package."""
MESSAGE_OVERHEAD_BYTES = 60
"""What a message costs beside its payload: TCP/IP and MQTT headers."""


class EmulationError(ValueError):
    """A scenario that cannot be used; says where and what would be right."""


class _EmulationPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DeviceClass(StatedDevice):
    """One kind of device."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    count: int = Field(1, ge=1, description="how many of these in each round of dealing")
    slowdown: float = Field(1.0, ge=1, description="seconds it computes for each of this machine")


class EmulationScenario(_EmulationPart):
    """Classes of devices, dealt to the devices of a run in turn."""

    note: str = ""
    devices: tuple[DeviceClass, ...] = Field(min_length=1)

    def class_of(self, index: int) -> DeviceClass:
        """Class of the device with this number, from 0, with the recording that is its own."""
        number, place = class_with_place([each.count for each in self.devices], index)
        return self.devices[number].of_device(place)


class Line:
    """One direction of a link: messages go through one after another, as it carries them."""

    def __init__(self, link: StatedLink, *, upwards: bool) -> None:
        self._link = link
        self._upwards = upwards
        self._free_at_s = 0.0

    def reserve(self, num_bytes: int, *, now_s: float) -> float:
        """When a message that is handed over now has gone through; seconds since the start."""
        num_bits = (num_bytes + MESSAGE_OVERHEAD_BYTES) * BITS_PER_BYTE
        start_s = max(now_s, self._free_at_s)
        self._free_at_s = self._link.carried_until_s(
            num_bits, start_s=start_s, upwards=self._upwards
        )
        return self._free_at_s
