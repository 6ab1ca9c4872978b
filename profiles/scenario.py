"""Scenarios: devices, links and a server to plan for without any of them."""

from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from profiles.cuts import CutTable, LayerCost
from profiles.device import ComputeState, DeviceState
from profiles.link import IndependentLinks, LinkState, Medium, Subcarriers
from profiles.stated_device import StatedDevice
from profiles.stated_link import class_with_place
from profiles.variation import Factors, Spread


class _ScenarioPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ScenarioLayer(_ScenarioPart):
    """What one layer, or several taken together, costs for one sample."""

    name: str
    network_layer: str | None = Field(
        None, description="the last layer of the trained network that this one stands for"
    )
    forward_flop: float = Field(ge=0)
    backward_flop: float = Field(ge=0)
    state_bytes: int = Field(ge=0)
    activation_bytes: int = Field(ge=0)


class ScenarioDevices(StatedDevice):
    """One kind of device; its rates are on one subcarrier, or on its own line."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = "device"
    count: int = Field(1, gt=0, description="how many of these in each round of dealing")
    flop_per_s: float = Field(gt=0)
    memory_bytes: float | None = Field(None, gt=0, description="free for training; none: enough")


class Scenario(_ScenarioPart):
    """Everything that the latency of a round depends on.

    Without layers, the costs are those of the network that is trained.
    """

    name: str
    note: str = ""
    calibrated: tuple[str, ...] = Field((), description="figures that are ours, not published")
    input_bytes: int = Field(0, ge=0)
    layers: tuple[ScenarioLayer, ...] = ()
    cut: int = Field(1, ge=0, description="how many of the layers are on the device")
    batch_size: int = Field(16, gt=0)
    local_epochs: int = Field(1, gt=0)
    label_bits: float = Field(8.0, ge=0)
    num_clusters: int = Field(2, gt=0)
    num_subcarriers: int | None = Field(
        None, gt=0, description="none: each device is on its own line"
    )
    server_flop_per_s: float = Field(gt=0)
    devices: tuple[ScenarioDevices, ...] = Field(min_length=1)
    spread: Spread = Spread()
    published: dict[str, float] = Field({}, description="figures to compare with, by name")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.layers and not self.cut <= len(self.layers):
            raise ValueError(f"cut {self.cut} is more than its {len(self.layers)} layers")
        if self.num_subcarriers and self.num_devices > self.num_subcarriers * self.num_clusters:
            raise ValueError(
                f"{self.num_devices} devices in {self.num_clusters} clusters are more than "
                f"{self.num_subcarriers} in a cluster, and each needs a subcarrier"
            )
        return self

    @property
    def num_devices(self) -> int:
        """How many devices it states."""
        return sum(each.count for each in self.devices)

    def cut_table(self) -> CutTable:
        """Take the layers as a network; the shapes of their outputs are not stated."""
        layers = (
            LayerCost(activation_shape=(), **layer.model_dump(exclude={"network_layer"}))
            for layer in self.layers
        )
        return CutTable(
            network=self.name, input_shape=(), input_bytes=self.input_bytes, layers=tuple(layers)
        )

    def medium(self) -> Medium:
        """Tell how the devices of a cluster meet."""
        return Subcarriers(self.num_subcarriers) if self.num_subcarriers else IndependentLinks()

    def without_growth(self) -> "Scenario":
        """Have devices all their samples from the beginning."""
        devices = tuple(each.model_copy(update={"growth": ()}) for each in self.devices)
        return self.model_copy(update={"devices": devices})

    def class_of(self, index: int) -> ScenarioDevices:
        """Class of the device with this number, from 0, with the recording that is its own."""
        number, place = class_with_place([each.count for each in self.devices], index)
        return self.devices[number].of_device(place)

    def names(self) -> list[str]:
        """Ids for the devices that it states."""
        width = len(str(self.num_devices - 1))
        return [f"device-{index:0{width}}" for index in range(self.num_devices)]

    def device_states(
        self,
        devices: Sequence[str] | None = None,
        *,
        cuts: CutTable | None = None,
        factors: Factors | None = None,
        elapsed_s: float = 0.0,
    ) -> tuple[DeviceState, ...]:
        """List the devices one by one, with the rates of the whole link, at one moment.

        By default these are as many as it states, at its own costs, and all as stated.
        """
        names = self.names() if devices is None else list(devices)
        table = self.cut_table() if cuts is None else cuts
        factors = factors or Factors(np.ones(len(names)), np.ones(len(names)))
        return tuple(
            self._device_state(
                name,
                self.class_of(index),
                table,
                speed=float(factors.speed[index]),
                rate=float(factors.rate[index]),
                elapsed_s=elapsed_s,
            )
            for index, name in enumerate(names)
        )

    def server(self, cuts: CutTable) -> ComputeState:
        """Seconds of the server at these costs."""
        speed = self.server_flop_per_s
        return ComputeState.of_server(cuts, forward_flop_per_s=speed, backward_flop_per_s=speed)

    def _device_state(
        self,
        device: str,
        each: ScenarioDevices,
        cuts: CutTable,
        *,
        speed: float,
        rate: float,
        elapsed_s: float,
    ) -> DeviceState:
        flop_per_s = each.flop_per_s * speed / each.at(elapsed_s).slowdown_factor
        up_bps, down_bps = each.mean_bps(elapsed_s)
        rate *= self.num_subcarriers or 1
        return DeviceState(
            device=device,
            num_samples=self.batch_size,
            free_memory_bytes=each.memory_bytes or np.inf,
            compute=ComputeState.of_device(
                cuts, forward_flop_per_s=flop_per_s, backward_flop_per_s=flop_per_s
            ),
            link=LinkState(
                up_bps=up_bps * rate,
                down_bps=down_bps * rate,
                round_trip_s=2 * each.mean_delay_s,
                message_s=0.0,
            ),
        )
