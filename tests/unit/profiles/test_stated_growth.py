"""How a scenario states that a device's data grow."""

import json
from pathlib import Path

import pytest

from profiles.emulation import EmulationError
from profiles.stated_device import StatedDevice
from runtime.scenarios.files import ScenarioError, load_emulation, load_scenario


def _device(*growth: dict[str, float]) -> StatedDevice:
    return StatedDevice.model_validate({"up_bps": 1e6, "down_bps": 1e6, "growth": growth})


def test_a_device_has_the_most_of_what_has_come_and_never_more_than_all() -> None:
    device = _device(
        {"from_s": 0, "fraction": 0.1},
        {"from_s": 30, "samples": 5},
        {"from_round": 4, "samples": 99},
    )
    assert device.num_there(80, round_=1, elapsed_s=0.0) == 8
    assert device.num_there(80, round_=3, elapsed_s=31.0) == 8
    assert device.num_there(20, round_=3, elapsed_s=31.0) == 5
    assert device.num_there(80, round_=4, elapsed_s=0.0) == 80
    assert device.num_there(3, round_=1, elapsed_s=0.0) == 1  # Something is to be trained on.
    assert _device().num_there(80, round_=1, elapsed_s=0.0) == 80


def _file(folder: Path, speed: str, growth: object) -> str:
    device = {"name": "pi", speed: 2.0, "up_bps": 1e6, "down_bps": 1e6, "growth": growth}
    server = {"server_flop_per_s": 1e9} if speed == "flop_per_s" else {}
    (folder / "own.json").write_text(json.dumps({"devices": [device], **server}))
    return "own.json"


@pytest.mark.parametrize("speed", ["slowdown", "flop_per_s"])
@pytest.mark.parametrize(
    ("growth", "said"),
    [
        ([{"from_s": 5, "samples": 3}], "growth says nothing of the beginning"),
        ([{"from_s": 0, "samples": 3, "fraction": 0.5}], "either samples or fraction"),
        ([{"samples": 3}], "either from_s or from_round"),
        ([{"from_s": 0, "fraction": 1.5}], "less than or equal to 1"),
        ([{"from_s": 0, "count": 1}], "unknown key devices.0.growth.0.count; the keys there are"),
    ],
)
def test_a_growth_that_cannot_be_is_refused_with_what_would_be_right(
    tmp_path: Path, speed: str, growth: object, said: str
) -> None:
    name = _file(tmp_path, speed, growth)
    with pytest.raises((ScenarioError, EmulationError), match=said):
        load_scenario(name, base_dir=tmp_path)


def test_only_a_simulation_takes_rounds_for_moments(tmp_path: Path) -> None:
    name = _file(tmp_path, "slowdown", [{"from_round": 1, "samples": 3}])
    assert load_scenario(name, base_dir=tmp_path).devices[0].growth[0].from_round == 1
    with pytest.raises(EmulationError, match=r"growth of pi states from_round.*state from_s"):
        load_emulation(name, base_dir=tmp_path)
