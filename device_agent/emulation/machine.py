"""What an emulated device says of its battery and its heat, and of its clock in that heat."""

from profiles.emulation import DeviceClass
from runtime.wire.published import DeviceProfile

CPU_HZ = 1.5e9
"""A Raspberry Pi 4's: whatever a class states of heat, its clock falls as its slowdown rises."""


def as_emulated(
    facts: DeviceProfile, device_class: DeviceClass, *, elapsed_s: float
) -> DeviceProfile:
    """Put what a class states of this moment in the place of what the machine says.

    Where a class states heat at any moment its clock is known at all of them: a device counts as
    throttled by what it ran at when it was measured.
    """
    point, changes = device_class.at(elapsed_s), dict[str, object]()
    if point.battery_fraction is not None:
        changes |= {"battery_fraction": point.battery_fraction, "plugged_in": False}
    if point.temperature_c is not None:
        changes["temperature_c"] = point.temperature_c
    if any(each.temperature_c is not None for each in device_class.trace):
        changes["cpu_hz"] = CPU_HZ / point.slowdown_factor
    return facts.model_copy(update=changes)
