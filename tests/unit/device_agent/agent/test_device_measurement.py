"""What a device says of itself: facts, compute, and when that is worth telling."""

from types import SimpleNamespace

import numpy as np
import pytest

from device_agent.agent.publisher import has_changed
from device_agent.agent.uploads import TurnMeter
from device_agent.engines.measurement import Timing, complete
from device_agent.engines.timing import (
    MAX_PASSES,
    MIN_PASSES,
    WARM_UP_PASSES,
    Pass,
    choose_cuts,
    divide_among_layers,
    median_pass,
    repeat_passes,
)
from device_agent.profiling.machine import (
    battery_fraction,
    cpu_hz,
    load_fraction,
    plugged_in,
    temperature_c,
)
from device_agent.profiling.reference_network import built_in_engine
from profiles.link_estimate import LinkEstimate
from runtime.wire.commands import Join
from runtime.wire.frames import FrameKind


def _pass(*seconds: float) -> Pass:
    return Pass(np.array(seconds), 2 * np.array(seconds))


def _run_pass() -> Timing[Pass]:
    yield 0.0
    return _pass(1.0)


def test_passes_stop_at_the_budget_but_not_before_a_few_and_never_go_on_for_ever() -> None:
    ticks = iter(range(1000))
    slow = complete(repeat_passes(_run_pass, budget_s=0.0, clock=lambda: float(next(ticks))))
    assert len(slow) == MIN_PASSES
    fast = complete(repeat_passes(_run_pass, budget_s=1.0, clock=lambda: 0.0))
    assert len(fast) == MAX_PASSES
    assert WARM_UP_PASSES > 0


def test_medians_ignore_an_outlier() -> None:
    middle, relative_deviation = median_pass([_pass(1, 3), _pass(1, 3), _pass(50, 90)])
    assert middle.forward_s.tolist() == [1, 3]
    assert relative_deviation == 0


def test_layers_add_up_to_every_device_side_that_was_timed() -> None:
    cost = np.array([1.0, 0.0, 1.0, 3.0, 5.0])
    layer_s = divide_among_layers(np.array([4.0, 6.0, 9.0]), [1, 3, 5], cost)
    assert np.cumsum(layer_s)[[0, 2, 4]] == pytest.approx([4.0, 6.0, 9.0])
    assert layer_s == pytest.approx([4.0, 0.0, 2.0, 3 * 3 / 8, 3 * 5 / 8])


def test_a_deeper_side_that_was_timed_as_faster_costs_nothing_more() -> None:
    layer_s = divide_among_layers(np.array([4.0, 3.0]), [1, 3], np.ones(3))
    assert layer_s.tolist() == [4.0, 0.0, 0.0]


def test_layers_above_the_last_timed_side_cost_what_those_below_do() -> None:
    layer_s = divide_among_layers(np.array([4.0]), [2], np.array([1.0, 1.0, 3.0]))
    assert layer_s.tolist() == [2.0, 2.0, 6.0]


def test_device_sides_are_timed_at_the_first_that_learns_at_even_costs_and_at_the_end() -> None:
    assert choose_cuts(np.ones(9), first=1) == [1, 3, 6, 9]
    assert choose_cuts(np.array([0.0, 9.0, 1.0]), first=2) == [2, 3]
    assert choose_cuts(np.ones(1), first=1) == [1]


@pytest.mark.torch
def test_a_layer_with_most_of_the_work_takes_most_of_the_time() -> None:
    ticks = iter(range(100_000))
    engine = built_in_engine("lenet", batch_size=4)
    measurement = engine.measure_layers(
        engine.random_batch(), budget_s=0.0, clock=lambda: float(next(ticks))
    )
    counted = complete(measurement.take())
    assert counted.layer_names[:3] == ("conv1", "relu1", "pool1")
    assert counted.forward_s.sum() == pytest.approx(1 / 4)  # One tick for the whole batch.
    assert (counted.backward_s >= 0).all()
    profile = counted.profile(network="lenet", batch_size=4)
    assert profile.forward_flop_per_s == pytest.approx(counted.forward_flop * 4)
    assert len(profile.layers) == len(counted.layer_names)
    slowed = counted.slowed(3).profile(network="", batch_size=4)
    assert slowed.forward_flop_per_s == pytest.approx(profile.forward_flop_per_s / 3)
    assert slowed.layers == ()


def test_what_a_platform_lacks_stays_unknown() -> None:
    bare = SimpleNamespace()
    for fact in (load_fraction, cpu_hz, temperature_c, battery_fraction):
        assert fact(bare) is None

    def fail() -> None:
        raise NotImplementedError

    poor = SimpleNamespace(
        cpu_freq=lambda: None,
        sensors_temperatures=dict,
        sensors_battery=lambda: None,
        getloadavg=fail,
        cpu_count=lambda: None,
    )
    for fact in (load_fraction, cpu_hz, temperature_c, battery_fraction):
        assert fact(poor) is None


def test_facts_are_in_the_units_that_their_names_say() -> None:
    rich = SimpleNamespace(
        cpu_freq=lambda: SimpleNamespace(current=1500.0),
        sensors_temperatures=lambda: {
            "nvme": [SimpleNamespace(current=80.0)],
            "cpu_thermal": [SimpleNamespace(current=55.5), SimpleNamespace(current=50.0)],
        },
        sensors_battery=lambda: SimpleNamespace(percent=40, power_plugged=False),
        getloadavg=lambda: (2.0, 1.0, 0.5),
        cpu_count=lambda: 4,
    )
    assert cpu_hz(rich) == 1.5e9
    assert temperature_c(rich) == 55.5
    assert battery_fraction(rich) == 0.4
    assert plugged_in(rich) is False
    assert plugged_in(SimpleNamespace(sensors_battery=lambda: None)) is None
    assert load_fraction(rich) == 0.5


def test_a_tenth_is_news_and_times_and_deviations_are_not() -> None:
    before = {"free_bytes": 100, "link": {"up_bps": 10.0, "up_deviation_bps": 1.0}, "at_unix_s": 1}
    same = {"free_bytes": 109, "link": {"up_bps": 9.1, "up_deviation_bps": 7.0}, "at_unix_s": 9}
    assert not has_changed(before, same)
    assert has_changed(before, same | {"free_bytes": 111})
    assert has_changed(before, same | {"link": {"up_bps": 8.9}})
    assert has_changed(before, same | {"link": None})
    assert has_changed({"layers": ({"s": 1.0},)}, {"layers": ({"s": 1.2},)})


def test_a_turn_is_told_phase_by_phase_as_means_of_its_local_epochs() -> None:
    now_s = [0.0]
    turn = TurnMeter(lambda: now_s[0])
    for epoch in range(2):
        turn.begin_upload()
        turn.uploaded(FrameKind.SMASHED, num_bytes=1000, seconds=0.5)
        now_s[0] += 3.0
        turn.arrived(FrameKind.GRADIENT, 600)
        now_s[0] += 0.25 * (epoch + 1)
        turn.arrived(FrameKind.GRADIENT, 400)
        turn.completed(FrameKind.GRADIENT, LinkEstimate())
    turn.uploaded(FrameKind.WEIGHTS, num_bytes=50, seconds=0.125)
    join = Join(
        run=1, round=2, cluster=0, purpose="train", cut=3, local_epochs=2, learning_rate=0.1
    )
    metrics = turn.metrics(join, forward_s=4.0, backward_s=6.0)
    assert (metrics.up_bytes, metrics.down_bytes) == (2050, 2000)
    assert metrics.waiting_s == pytest.approx(3.25 + 3.5)
    phases = metrics.phases
    assert (phases.forward_s, phases.backward_s, phases.upload_s) == (2.0, 3.0, 0.5)
    assert phases.download_s == pytest.approx((0.25 + 0.5) / 2)
    assert (phases.model_upload_s, phases.server_s) == (0.125, 0.0)
