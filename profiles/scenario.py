"""Scenarios: a network, devices and links to plan for without any of them."""

from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field

from profiles.cuts import CutTable, LayerCost
from profiles.device import ComputeState, DeviceState
from profiles.link import IndependentLinks, LinkState, Medium, Subcarriers


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ScenarioLayer(_Part):
    """What one layer, or several taken together, costs for one sample."""

    name: str
    forward_flop: float = Field(ge=0)
    backward_flop: float = Field(ge=0)
    state_bytes: int = Field(ge=0)
    activation_bytes: int = Field(ge=0)


class ScenarioDevices(_Part):
    """A number of identical devices."""

    count: int = Field(gt=0)
    flop_per_s: float = Field(gt=0)
    up_bps: float = Field(gt=0, description="on one subcarrier, or on the device's own line")
    down_bps: float = Field(gt=0, description="on one subcarrier, or on the device's own line")


class Scenario(_Part):
    """Everything that the latency of a round depends on."""

    name: str
    note: str
    calibrated: tuple[str, ...] = Field(description="figures that are ours, not published")
    input_bytes: int = Field(ge=0)
    layers: tuple[ScenarioLayer, ...]
    cut: int
    batch_size: int = Field(gt=0)
    local_epochs: int = Field(gt=0)
    label_bits: float = Field(ge=0)
    num_clusters: int = Field(gt=0)
    num_subcarriers: int | None = Field(description="none: each device is on its own line")
    server_flop_per_s: float = Field(gt=0)
    devices: tuple[ScenarioDevices, ...]
    published: dict[str, float] = Field(description="figures to compare with, by name")

    def cut_table(self) -> CutTable:
        """Take the layers as a network; the shapes of their outputs are not stated."""
        layers = (LayerCost(activation_shape=(), **dict(layer)) for layer in self.layers)
        return CutTable(
            network=self.name, input_shape=(), input_bytes=self.input_bytes, layers=tuple(layers)
        )

    def medium(self) -> Medium:
        """Tell how the devices of a cluster meet."""
        return Subcarriers(self.num_subcarriers) if self.num_subcarriers else IndependentLinks()

    def device_states(self) -> tuple[DeviceState, ...]:
        """List the devices one by one, with the rates of the whole link and all the memory."""
        every = [each for each in self.devices for _ in range(each.count)]
        width = len(str(len(every) - 1))
        return tuple(
            self._device_state(f"device-{index:0{width}}", each) for index, each in enumerate(every)
        )

    def _device_state(self, device: str, each: ScenarioDevices) -> DeviceState:
        num_units = self.num_subcarriers or 1
        return DeviceState(
            device=device,
            num_samples=self.batch_size,
            free_memory_bytes=float("inf"),
            compute=ComputeState.of_device(
                self.cut_table(),
                forward_flop_per_s=each.flop_per_s,
                backward_flop_per_s=each.flop_per_s,
            ),
            link=LinkState(
                up_bps=each.up_bps * num_units,
                down_bps=each.down_bps * num_units,
                round_trip_s=0.0,
                message_s=0.0,
            ),
        )


def load_scenario(name: str) -> Scenario:
    """Read a scenario that ships with the package."""
    text = files("profiles").joinpath("data", f"{name}.json").read_text(encoding="utf-8")
    return Scenario.model_validate_json(text)
