"""What a device's battery, heat and metered link say of the next round: it rests, or is slower.

Three rules, each with its setting in the job's `[plan]`:

- A device that runs on a battery and has less than `rest_below_battery` of it left rests.
- A device at `throttled_from_c` or hotter, whose processor runs slower than when its speed was
  measured, is planned as slower by as much.
- A device rests whose budget in `byte_budgets` or `energy_budgets` would not last for another round
  like its last.

Where all devices would rest nobody does, which the plan says: a run that waits for ever helps no
battery.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from edge_coordinator.devices.registry import DeviceRecord
from edge_coordinator.job.plan_settings import EVERY_OTHER, PlanSettings
from runtime.wire.measures import ComputeProfile
from runtime.wire.published import DeviceProfile

MOST_TIMES_SLOWER = 4.0
"""A processor that idles shows a lower frequency than that at which it would compute."""


@dataclass(frozen=True)
class DeviceTraffic:
    """What a device has sent and received in a run, as it says itself."""

    num_bytes: int
    last_bytes: int
    """In the last round that is counted."""
    last_round: int


@dataclass(frozen=True)
class DeviceEnergy:
    """What a device has drawn in the rounds of a run."""

    joules: float
    last_j: float
    """In the last round."""


class Conditions:
    """Follows the devices of one run."""

    def __init__(self, settings: PlanSettings) -> None:
        self._settings = settings
        self._measured_hz: dict[str, tuple[float, float]] = {}
        """When a device's speed was measured, and at which frequency."""
        self.overruled: dict[str, str] = {}
        """Devices that would rest in this round if not all did, and why."""
        self.news = ""
        """What is new of that in this round."""
        self.traffic: dict[str, DeviceTraffic] = {}
        self.energy: dict[str, DeviceEnergy] = {}

    def note(self, records: Mapping[str, DeviceRecord]) -> None:
        """Take in what devices have published since the last round."""
        for device, record in records.items():
            self._note_traffic(device, record)
            profile = record.profile
            if profile is None or profile.compute is None or profile.cpu_hz is None:
                continue
            measured_at_s = profile.compute.measured_at_unix_s
            if self._measured_hz.get(device, (None,))[0] != measured_at_s:
                self._measured_hz[device] = (measured_at_s, profile.cpu_hz)

    def note_energy(self, joules: Mapping[str, float]) -> None:
        """Take in what devices have drawn in a round."""
        for device, drawn_j in joules.items():
            before = self.energy[device].joules if device in self.energy else 0.0
            self.energy[device] = DeviceEnergy(before + drawn_j, drawn_j)

    def resting(self, records: Mapping[str, DeviceRecord]) -> dict[str, str]:
        """Say which of these devices rest, and why; nobody, if all would."""
        reasons = {
            device: why
            for device, record in sorted(records.items())
            if (why := self._battery_low(record.profile) or self._budgets_used(device))
        }
        before, self.overruled = self.overruled, reasons if len(reasons) == len(records) else {}
        self.news = "nobody rests, since all would" if self.overruled and not before else ""
        return {} if self.overruled else reasons

    def slower(self, records: Mapping[str, DeviceRecord]) -> dict[str, str]:
        """Say which devices are slower than they were measured, and why."""
        return {
            device: f"computes {times:.3g} times as long as measured: it is at "
            f"{record.profile.temperature_c:.0f} °C, and its processor runs slower"
            for device, record in records.items()
            if record.profile and (times := self._times_slower(device, record.profile)) > 1
        }

    def assumed(self, records: Mapping[str, DeviceRecord]) -> dict[str, str]:
        """Say who of these devices is slower, and who would rest if not all would, and why."""
        needed = {
            device: f"takes part all the same, since all would rest: {why.removeprefix('rests: ')}"
            for device, why in self.overruled.items()
        }
        slower = self.slower(records)
        return {
            device: "; ".join(said[device] for said in (slower, needed) if device in said)
            for device in slower | needed
        }

    def as_now(self, records: Mapping[str, DeviceRecord]) -> dict[str, DeviceRecord]:
        """Give the records, with the present speed of devices that are slower than measured."""
        return {device: self._as_now(device, record) for device, record in records.items()}

    def _as_now(self, device: str, record: DeviceRecord) -> DeviceRecord:
        profile = record.profile
        if profile is None or profile.compute is None:
            return record
        times = self._times_slower(device, profile)
        if times == 1:
            return record
        compute = _slowed(profile.compute, times)
        return replace(record, profile=profile.model_copy(update={"compute": compute}))

    def _times_slower(self, device: str, profile: DeviceProfile) -> float:
        heat_c, now_hz = profile.temperature_c, profile.cpu_hz
        if device not in self._measured_hz or heat_c is None or not now_hz:
            return 1.0
        if heat_c < self._settings.throttled_from_c:
            return 1.0
        return min(max(self._measured_hz[device][1] / now_hz, 1.0), MOST_TIMES_SLOWER)

    def _battery_low(self, profile: DeviceProfile | None) -> str:
        least = self._settings.rest_below_battery
        if profile is None or profile.battery_fraction is None or profile.plugged_in:
            return ""
        if profile.battery_fraction >= least:
            return ""
        return f"rests: its battery is at {profile.battery_fraction:.0%}, below {least:.0%}"

    def _budgets_used(self, device: str) -> str:
        traffic, energy = self.traffic.get(device), self.energy.get(device)
        budget = _own(self._settings.byte_budgets, device)
        if traffic and (why := _used_up(traffic.num_bytes, traffic.last_bytes, budget, "MB")):
            return why
        budget = _own(self._settings.energy_budgets, device)
        return _used_up(energy.joules, energy.last_j, budget, "J") if energy else ""

    def _note_traffic(self, device: str, record: DeviceRecord) -> None:
        metrics, before = record.metrics, self.traffic.get(device, DeviceTraffic(0, 0, -1))
        if metrics is None or metrics.round <= before.last_round:
            return
        num_bytes = metrics.up_bytes + metrics.down_bytes
        self.traffic[device] = DeviceTraffic(before.num_bytes + num_bytes, num_bytes, metrics.round)


def _own(budgets: Mapping[str, float], device: str) -> float | None:
    return budgets.get(device, budgets.get(EVERY_OTHER))


def _used_up(used: float, last: float, budget: float | None, unit: Literal["MB", "J"]) -> str:
    """Say why a device rests whose budget would not last for another round like its last."""
    if budget is None or used + last <= budget:
        return ""
    one = 1e6 if unit == "MB" else 1.0
    return (
        f"rests: {used / one:.3g} {unit} of its budget of {budget / one:.3g} {unit} are used, and "
        f"a round takes {last / one:.3g} {unit}"
    )


def _slowed(compute: ComputeProfile, times: float) -> ComputeProfile:
    """Take so many times the seconds of every layer."""
    layers = tuple(
        layer.model_copy(
            update={"forward_s": times * layer.forward_s, "backward_s": times * layer.backward_s}
        )
        for layer in compute.layers
    )
    rates = {
        "forward_flop_per_s": compute.forward_flop_per_s / times,
        "backward_flop_per_s": compute.backward_flop_per_s / times,
    }
    return compute.model_copy(update={"layers": layers, **rates})
