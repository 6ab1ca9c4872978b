"""Links that carry what was recorded of real ones, and links that lose packets."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.emulation.bus import EmulatedBus
from profiles.emulation import MESSAGE_OVERHEAD_BYTES, DeviceClass, EmulationError
from profiles.recording import Recording
from profiles.stated_link import LEAST_TIMEOUT_S, StatedLink
from runtime.bus.memory_bus import MemoryBroker
from runtime.scenarios.files import ScenarioError, load_emulation, load_scenario
from runtime.scenarios.recordings import RecordingError, read_recordings
from tests.unit.device_agent.emulation.test_emulation import Time

RATES = Recording.of_samples("r", [(10.0, 1e6), (11.0, 0.0), (13.0, 3e6)])
"""1 Mbit/s for a second, nothing for two, 3 Mbit/s for as long; then again."""


def test_a_message_waits_through_an_outage_and_into_the_next_loop() -> None:
    assert RATES.carried_until_s(0.5e6, start_s=0.0) == pytest.approx(0.5)
    assert RATES.carried_until_s(1.0e6, start_s=0.5) == pytest.approx(3.0 + 0.5 / 3)
    assert RATES.carried_until_s(7.0e6 + 0.5e6, start_s=0.0) == pytest.approx(5.5)
    assert RATES.carried_until_s(0.5e6, start_s=5.0 * 1000) == pytest.approx(5000.5)
    assert RATES.mean_bps == pytest.approx(7e6 / 5)
    assert RATES.mean_bps_within(4.5, 1.0) == pytest.approx(2e6)


@settings(max_examples=30)
@given(
    rates=st.lists(st.sampled_from([0.0, 1e5, 2e6]), min_size=1, max_size=6).filter(any),
    bits=st.lists(st.integers(1, 10**7), min_size=2, max_size=2),
    start_s=st.floats(0, 50),
)
def test_two_messages_one_after_another_take_as_long_as_one_of_both(
    rates: list[float], bits: list[int], start_s: float
) -> None:
    recording = Recording.of_samples("r", list(enumerate(rates)))
    between_s = recording.carried_until_s(bits[0], start_s=start_s)
    both_s = recording.carried_until_s(sum(bits), start_s=start_s)
    assert start_s <= between_s <= both_s
    assert recording.carried_until_s(bits[1], start_s=between_s) == pytest.approx(both_s, abs=1e-3)


def test_each_device_of_a_class_has_a_recording_and_a_beginning_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / "a.csv").write_text("second,Mbit/s\n0,1\n1,3\n", encoding="utf-8")
    (tmp_path / "cell" / "b.txt").write_text("# up and down\n0 2 8\n1 2 8\n", encoding="utf-8")
    text = "[[devices]]\nname='far'\nslowdown=2\n[[devices]]\nname='near'\nslowdown=1\n"
    text += "recorded='cell'\noffset_s=1\n"
    text = text.replace("slowdown=2", "slowdown=2\nup_bps=1e6\ndown_bps=1e6")
    (tmp_path / "my.toml").write_text(text, encoding="utf-8")
    emulated = load_emulation("my.toml", base_dir=tmp_path)
    near = [emulated.class_of(index) for index in (1, 3, 5)]
    assert [each.recordings[0][0].name for each in near] == ["a.csv", "b.txt", "a.csv"]
    assert [each.offset_s for each in near] == [0, 1, 2]
    assert near[0].up_bps == pytest.approx(2e6)
    assert near[0].down_bps == pytest.approx(5e6)
    ends_s = [each.carried_until_s(1e6, start_s=0.0, upwards=True) for each in near]
    assert ends_s == pytest.approx([1.0, 0.5, 1.0])
    simulated = load_scenario("my.toml", base_dir=tmp_path)
    states = simulated.device_states(list("abcd"), cuts=load_scenario("paper").cut_table())
    assert [state.link.up_bps for state in states if state.link] == pytest.approx([1e6, 2e6] * 2)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("0 1\n1 fast\n", "line 2 of .*'1 fast'; right would be seconds and Mbit/s, like"),
        ("0 1\n1 2 3\n", "line 2"),
        ("0 1\n1 2\n1 3\n", "line 3 of .*'1 3'; seconds have to rise, and the line before has 1"),
        ("0 0\n1 0\n", "r.txt: rates have to be 0 or more, and one more than 0"),
        ("0 1\n1 -2\n", "line 2 of .*'1 -2'; rates have to be 0 or more"),
        ("s,rate\n0,1\n1,nan\n", "line 3 of .*'1,nan'; these have to be numbers, not nan"),
        (
            "0,5000000\n",
            "line 1 of .*'0,5000000'; that is more than any link carries; rates are in M",
        ),
        ("0;5,5;6,1;2\n", "line 1"),
        ("5\n4\n", "line 2 of .*'4'; milliseconds never fall"),
        ("5\n6.5\n", "line 2 of .*'6.5'; right would be .*of Mahimahi, whole milliseconds alone"),
        ("0\n0\n", "its last packet has to leave later than at 0"),
        ("\0" * 5000, "line 2"),
        ("seconds rate\n", "holds no line of seconds"),
        (None, "there is no such file or folder"),
    ],
)
def test_a_bad_recording_says_where_and_what_would_be_right(
    tmp_path: Path, lines: str | None, words: str
) -> None:
    if lines is not None:
        (tmp_path / "r.txt").write_text(lines, encoding="utf-8")
    device = "[[devices]]\nname='a'\nrecorded='r.txt'\n"
    (tmp_path / "my.toml").write_text(device, encoding="utf-8")
    with pytest.raises(EmulationError, match=words):
        load_emulation("my.toml", base_dir=tmp_path)
    own = f"server_flop_per_s=1e9\n{device}flop_per_s=1e9\n"
    (tmp_path / "own.toml").write_text(own, encoding="utf-8")
    with pytest.raises(ScenarioError, match=words):
        load_scenario("own.toml", base_dir=tmp_path)


def test_a_recording_is_read_as_spreadsheets_of_any_country_write_it(tmp_path: Path) -> None:
    files = {
        "blanks": "0 1.5 3\n2 2.5 3\n",
        "quoted": '"s","up","down"\n"0","1.5","3"\n"2","2.5","3"\n',
        "semicolons": "# of a tram\ns;up;down\n0;1,5;3,0\n2;2,5;3,0\n",
        "tabs": "0\t1,5\t3\n2\t2,5\t3\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for up, down in read_recordings(tmp_path):
        assert (up.from_s, up.bps, up.period_s) == ((0.0, 2.0), (1.5e6, 2.5e6), 4.0)
        assert set(down.bps) == {3e6}


@settings(max_examples=40)
@given(moments_ms=st.lists(st.integers(0, 2000), min_size=1, max_size=60).filter(any))
def test_a_mahimahi_trace_carries_its_packets_in_every_period(
    tmp_path_factory: pytest.TempPathFactory, moments_ms: list[int]
) -> None:
    path = tmp_path_factory.mktemp("mahimahi") / "trace"
    path.write_text("".join(f"{ms}\n" for ms in sorted(moments_ms)), encoding="utf-8")
    ((up, down),) = read_recordings(path)
    assert up == down
    assert up.period_s == max(moments_ms) / 1e3
    sent_bits = 1500 * 8 * len(moments_ms)
    assert up.mean_bps * up.period_s == pytest.approx(sent_bits)
    before = sum(1 for ms in moments_ms if ms <= 1000) * 1500 * 8
    if up.period_s >= 1:
        assert up.mean_bps_within(0.0, 1.0) == pytest.approx(before, rel=1e-6, abs=1e-3)


def test_the_two_ways_of_a_mahimahi_link_are_one_device_s(tmp_path: Path) -> None:
    for name, every_ms in {"a.up": 4, "a.down": 2, "b.up": 1}.items():
        text = "".join(f"{ms}\n" for ms in range(every_ms, 1001, every_ms))
        (tmp_path / name).write_text(text, encoding="utf-8")
    rates = [tuple(way.mean_bps for way in link) for link in read_recordings(tmp_path)]
    assert rates == [pytest.approx((3e6, 6e6)), pytest.approx((12e6, 12e6))]
    assert len(read_recordings(tmp_path / "a.down")) == 1


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A device of zeros has no end."""
    with pytest.raises(RecordingError, match="/dev/zero': it is neither a file nor a folder"):
        read_recordings(Path("/dev/zero"))
    with pytest.raises(RecordingError, match=r"cannot be read: File name too long"):
        read_recordings(tmp_path / ("x" * 300))
    with pytest.raises(RecordingError, match="holds 0 files"):
        read_recordings(tmp_path)


async def test_jitter_and_lost_packets_delay_messages_and_leave_their_order() -> None:
    time = Time()
    link = DeviceClass(name="a", up_bps=8e9, down_bps=8e9, delay_s=0.01, jitter_s=0.5, loss=0.25)
    inner = MemoryBroker().connect("a")
    generator = np.random.default_rng(1)
    draws = np.random.default_rng(1).random((8, 2))
    delays_s = 0.01 + 0.5 * draws[:, 0] + (draws[:, 1] < 0.25) * LEAST_TIMEOUT_S
    async with EmulatedBus(
        inner, link, clock=time.clock, sleep=time.sleep, generator=generator
    ) as bus:
        for _ in range(4):
            await bus.publish("topic", b"", retain=False)
    num_bits = 8 * (len("topic") + MESSAGE_OVERHEAD_BYTES)
    through_s = 4 * link.carried_until_s(num_bits, start_s=0.0, upwards=True)
    assert time.now_s == pytest.approx(delays_s.sum() + through_s)
    assert link.mean_delay_s == pytest.approx(0.01 + 0.25 + 0.25 * LEAST_TIMEOUT_S)


def test_a_link_that_loses_packets_carries_less_and_much_less_over_a_long_way() -> None:
    def seconds(delay_s: float, loss: float) -> float:
        link = StatedLink(up_bps=1e7, down_bps=1e7, delay_s=delay_s, loss=loss)
        return link.carried_until_s(1e7, start_s=0.0, upwards=True)

    assert seconds(0.001, 0.0) == pytest.approx(1.0)
    assert seconds(0.0, 0.01) == pytest.approx(1 / 0.99)
    assert seconds(0.1, 0.01) == pytest.approx(1e7 / (1460 * 8 / 0.2 * np.sqrt(1.5 / 0.01)))


def test_a_scenario_of_simulations_is_no_emulation_and_the_other_way_round_it_is(
    tmp_path: Path,
) -> None:
    lines = "[[devices]]\nname='a'\nup_bps=1e6\ndown_bps=1e6\n"
    own = f"server_flop_per_s=1e9\n{lines}flop_per_s=1e9\n"
    (tmp_path / "own.toml").write_text(own, encoding="utf-8")
    with pytest.raises(EmulationError, match=r"states flop_per_s, as simulations .* slowdown"):
        load_emulation("own.toml", base_dir=tmp_path)
    (tmp_path / "emulated.toml").write_text(f"{lines}slowdown=2\n", encoding="utf-8")
    assert load_scenario("emulated.toml", base_dir=tmp_path).devices[0].flop_per_s == 5e9
