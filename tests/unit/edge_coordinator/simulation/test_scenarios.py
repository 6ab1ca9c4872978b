"""Scenarios: what a file may say, how devices vary, and what is said of a bad one."""

from pathlib import Path

import numpy as np
import pytest

from profiles.variation import Spread, between_devices, between_rounds
from runtime.scenarios.files import SHIPPED, ScenarioError, load_scenario

DEVICE = "[[devices]]\nflop_per_s = 1e9\nup_bps = 1e6\ndown_bps = 2e6\n"


def _file(folder: Path, text: str) -> str:
    path = folder / "own.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_scenario_can_be_read(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.note
    assert scenario.num_devices >= 1


def test_drawn_factors_have_mean_1_and_the_stated_deviation() -> None:
    spread = Spread(compute_between_devices=0.3, rate_between_rounds=0.5)
    lasting = between_devices(spread, count=200_000, generator=np.random.default_rng(0))
    passing = between_rounds(spread, count=200_000, generator=np.random.default_rng(0))
    for factors, deviation in ((lasting.speed, 0.3), (passing.rate, 0.5)):
        assert factors.mean() == pytest.approx(1.0, abs=0.01)
        assert factors.std() == pytest.approx(deviation, rel=0.02)
    assert np.all(lasting.rate == 1)
    assert np.all(passing.speed == 1)


def test_a_trace_changes_links_and_compute_as_time_passes(tmp_path: Path) -> None:
    text = f"server_flop_per_s = 1e9\n{DEVICE}period_s = 60\ntrace = [{{ from_s = 20.0, "
    scenario = load_scenario(_file(tmp_path, text + "rate_factor = 0.1, slowdown_factor = 2 }]\n"))
    cuts = load_scenario("paper").cut_table()
    before, after, again = (
        scenario.device_states(["a"], cuts=cuts, elapsed_s=moment_s)[0]
        for moment_s in (0.0, 30.0, 61.0)
    )
    assert before.link == again.link
    assert before.link is not None
    assert after.link is not None
    assert after.link.up_bps == pytest.approx(0.1 * before.link.up_bps)
    assert before.compute is not None
    assert after.compute is not None
    assert after.compute.forward_s[1] == pytest.approx(2 * before.compute.forward_s[1])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (DEVICE, "server_flop_per_s is missing"),
        ("server_flop_per_s = 1e9\n", "devices is missing"),
        (f"server_flop_per_s = -1\n{DEVICE}", "server_flop_per_s = -1: input should be greater"),
        (f"server_flop_per_s = 1e9\n{DEVICE}flops = 3\n", "unknown key devices.0.flops; the keys"),
        (f"server_flop_per_s = 1e9\n{DEVICE}[spread]\nrate_between_rounds = 9\n", "less than or"),
        (f"server_flop_per_s = 1e9\nnum_subcarriers = 1\n{DEVICE}count = 3\n", "3 devices in 2"),
        ("[[devices", "is not toml"),
    ],
)
def test_a_bad_file_is_one_sentence_with_value_and_place(
    text: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ScenarioError, match=r"own\.toml") as caught:
        load_scenario(_file(tmp_path, text))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ScenarioError, match="paper, heterogeneous, uniform"):
        load_scenario("papr")
