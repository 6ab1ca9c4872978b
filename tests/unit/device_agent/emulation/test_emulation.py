"""Emulated devices by counted schedules: no test here waits for a clock."""

import asyncio
from pathlib import Path

import pytest

from device_agent.emulation.bus import EmulatedBus
from device_agent.emulation.engine import EmulatedEngine
from device_agent.engines.open import open_engine
from edge_coordinator.job.settings import device_names
from profiles.emulation import (
    EMULATED,
    MESSAGE_OVERHEAD_BYTES,
    DeviceClass,
    EmulationError,
    Line,
)
from profiles.stated_link import TracePoint
from runtime.bus.bus import Delivery
from runtime.bus.memory_bus import MemoryBroker
from runtime.scenarios.files import load_emulation
from runtime.wire.commands import Assignment, OptimizerSpec
from tests.root import ROOT


class Time:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)

    def nap(self, seconds: float) -> None:
        self.now_s += seconds


def test_messages_go_through_a_line_one_after_another() -> None:
    faster = (TracePoint(from_s=5, rate_factor=10),)
    line = Line(DeviceClass(name="a", up_bps=8_000, down_bps=1, trace=faster), upwards=True)
    size = 1_000 - MESSAGE_OVERHEAD_BYTES
    assert line.reserve(size, now_s=0.0) == pytest.approx(1.0)
    assert line.reserve(size, now_s=0.5) == pytest.approx(2.0)
    assert line.reserve(size, now_s=9.0) == pytest.approx(9.1)


def test_a_trace_is_in_force_from_its_moment_and_repeats() -> None:
    points = (TracePoint(from_s=5, rate_factor=0.1), TracePoint(from_s=8))
    faded = DeviceClass(name="a", up_bps=1, down_bps=1, trace=points, period_s=10)
    factors = [faded.at(elapsed_s).rate_factor for elapsed_s in (0, 4.9, 5, 7.9, 8, 12, 15, 18)]
    assert factors == [1, 1, 0.1, 0.1, 1, 1, 0.1, 1]


@pytest.mark.parametrize("name", EMULATED)
def test_the_shipped_scenarios_deal_classes_to_all_devices(name: str) -> None:
    scenario = load_emulation(name, base_dir=Path())
    classes = [scenario.class_of(index).name for index, _ in enumerate(device_names(12))]
    assert set(classes) == {each.name for each in scenario.devices}
    assert classes[:6] == classes[6:] or name == "fading"
    assert scenario.note


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[devices]]\nname='a'\nup_bps=1", "devices.0.down_bps is missing"),
        ("[[devices]]\nname='a'\nup_bps=0\ndown_bps=1", "devices.0.up_bps = 0: input should be"),
        ("devices = []", "at least 1 item"),
        ("x =", "is not toml"),
        (
            "[[devices]]\nname='a'\nup_bps=1\ndown_bps=1\ntrace=[{from_s=2},{from_s=1}]",
            "the trace's from_s have to rise",
        ),
    ],
)
def test_a_wrong_scenario_says_where(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "my.toml").write_text(text, encoding="utf-8")
    with pytest.raises(EmulationError, match=words):
        load_emulation("my.toml", base_dir=tmp_path)


def test_a_scenario_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(EmulationError, match="uniform, mixed, one-straggler, fading"):
        load_emulation("mxed", base_dir=tmp_path)
    with pytest.raises(EmulationError, match="cannot be read"):
        load_emulation("none.toml", base_dir=tmp_path)


async def test_an_upload_takes_its_bytes_at_the_rate_and_the_delay_there_and_back() -> None:
    time = Time()
    link = DeviceClass(name="a", up_bps=8_000, down_bps=8e9, delay_s=0.25)
    inner = MemoryBroker().connect("a")
    async with EmulatedBus(inner, link, clock=time.clock, sleep=time.sleep) as bus:
        await bus.publish("topic", bytes(10_000 - 5 - MESSAGE_OVERHEAD_BYTES), retain=False)
    assert time.now_s == pytest.approx(10.0 + 2 * 0.25)


async def test_downloads_queue_on_the_line_but_share_the_delay() -> None:
    time = Time()
    link = DeviceClass(name="a", up_bps=8e9, down_bps=8_000, delay_s=5.0)
    broker = MemoryBroker()
    inner = broker.connect("a")
    async with EmulatedBus(inner, link, clock=time.clock, sleep=time.sleep) as bus:
        await inner.subscribe("t")
        for _ in range(3):
            broker.route("t", bytes(1_000 - 1 - MESSAGE_OVERHEAD_BYTES), retain=False)
        arrived_s: list[float] = []
        async for event in bus.events():
            arrived_s += [time.now_s] * isinstance(event, Delivery)
            if len(arrived_s) == 3:
                break
    assert arrived_s == pytest.approx([6.0, 7.0, 8.0])


@pytest.mark.torch
def test_a_slow_device_takes_its_factor_of_its_own_processor_time() -> None:
    time, processor = Time(), Time()
    slow = DeviceClass(name="a", slowdown=4, up_bps=1, down_bps=1)
    assignment = Assignment(
        run=1,
        network="mlp",
        options={},
        loss="mse",
        seed=0,
        batch_size=4,
        held_out=0.0,
        max_evaluation_samples=1,
        num_classes=None,
        optimizer=OptimizerSpec(),
        carry_state=False,
    )
    inner = open_engine("torch", assignment, sample_shape=(1, 28, 28))
    engine = EmulatedEngine(
        inner, slow, cpu_clock=processor.clock, clock=time.clock, sleep=time.nap
    )

    def work() -> str:
        processor.nap(2.0)
        time.nap(3.0)  # It had company.
        return "done"

    assert engine.take_longer(work) == "done"
    assert time.now_s == pytest.approx(4 * 2.0)


def test_the_documented_scenario_can_be_used(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "emulation.md").read_text(encoding="utf-8")
    example = page.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "documented.toml").write_text(example, encoding="utf-8")
    scenario = load_emulation("documented.toml", base_dir=tmp_path)
    assert [scenario.class_of(index).name for index in range(4)] == [
        "near",
        "near",
        "fading",
        "near",
    ]
