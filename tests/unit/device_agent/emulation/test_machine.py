"""What emulated devices say of their batteries and their heat."""

from device_agent.emulation.machine import CPU_HZ, as_emulated
from profiles.emulation import DeviceClass
from runtime.wire.published import DeviceProfile
from tests.sites import make_profile


def _said(*trace: dict[str, float], elapsed_s: float) -> DeviceProfile:
    facts = make_profile("a", 0.0).model_copy(
        update={"battery_fraction": 0.9, "plugged_in": True, "temperature_c": 40.0, "cpu_hz": 3e9}
    )
    own = {"name": "a", "up_bps": 1e6, "down_bps": 1e6, "trace": trace}
    return as_emulated(facts, DeviceClass.model_validate(own), elapsed_s=elapsed_s)


def test_a_battery_is_the_stated_one_from_its_moment_on_and_else_the_machine_s() -> None:
    trace = ({"from_s": 10.0, "battery_fraction": 0.1}, {"from_s": 20.0})
    said = [_said(*trace, elapsed_s=elapsed_s) for elapsed_s in (5.0, 10.0, 25.0)]
    assert [each.battery_fraction for each in said] == [0.9, 0.1, 0.9]
    assert [each.plugged_in for each in said] == [True, False, True]
    assert {each.cpu_hz for each in said} == {3e9}


def test_a_clock_falls_in_the_heat_as_the_device_gets_slower() -> None:
    trace = {"from_s": 10.0, "temperature_c": 85.0, "slowdown_factor": 2.0}
    cool, hot = (_said(trace, elapsed_s=elapsed_s) for elapsed_s in (0.0, 10.0))
    assert (cool.temperature_c, cool.cpu_hz) == (40.0, CPU_HZ)
    assert (hot.temperature_c, hot.cpu_hz) == (85.0, CPU_HZ / 2)
