"""Who rests and who is planned as slower: batteries, heat and metered links."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from edge_coordinator.devices.registry import DeviceRecord
from edge_coordinator.replanning.conditions import MOST_TIMES_SLOWER
from edge_coordinator.replanning.planner import PlannedRound
from profiles.phases import Phase
from runtime.wire.measures import PhaseSeconds
from runtime.wire.published import DeviceMetrics
from tests.stated_profiles import Stated
from tests.unit.edge_coordinator.replanning.test_run_planner import planner_of, records_of

THREE = {name: Stated(layer_s=1e-4) for name in "abc"}


def records(**facts: Mapping[str, object]) -> dict[str, DeviceRecord]:
    """Give devices whose profiles say besides what is stated of them."""
    return {
        device: replace(record, profile=record.profile.model_copy(update=facts.get(device, {})))
        for device, record in records_of(THREE).items()
        if record.profile
    }


def with_metrics(known: dict[str, DeviceRecord], round_: int, **num_bytes: int) -> None:
    """Let devices say what a round's turn took."""
    none = PhaseSeconds.model_validate(dict.fromkeys(PhaseSeconds.model_fields, 0.0))
    for device, each in num_bytes.items():
        metrics = DeviceMetrics(
            run=1, round=round_, cluster=0, forward_s=0, backward_s=0, upload_s=0, waiting_s=0,
            up_bytes=each, down_bytes=0, phases=none,
        )  # fmt: skip
        known[device] = replace(known[device], metrics=metrics)


def test_a_device_whose_battery_is_almost_empty_rests_until_it_is_charged() -> None:
    planner = planner_of()
    low = planner.plan(1, records(b={"battery_fraction": 0.08}))
    assert dict(low.plan.left_out) == {"b": "rests: its battery is at 8%, below 15%"}
    assert low.resting == ("b",)
    charging = records(b={"battery_fraction": 0.08, "plugged_in": True})
    charged = planner.plan(2, charging)
    assert charged.plan.left_out == {}
    assert charged.changed.endswith("; because b came")
    again = planner.plan(3, records(b={"battery_fraction": 0.08}))
    assert again.changed.endswith("; because b (rests: its battery is at 8%, below 15%) went")
    assert planner.plan(4, records(b={"battery_fraction": 0.2})).plan.left_out == {}


def test_nobody_rests_where_all_would() -> None:
    empty = {name: {"battery_fraction": 0.01} for name in "abc"}
    planned = planner_of().plan(1, records(**empty))
    assert planned.plan.left_out == {}
    assert planned.resting == ()
    assert planned.changed == "nobody rests, since all would"
    said = "takes part all the same, since all would rest: its battery is at 1%, below 15%"
    assert all(words.endswith(said) for words in planned.assumed.values())
    assert planned.assumed.keys() == {*"abc"}


def test_a_hot_device_whose_clock_has_fallen_is_planned_as_slower_by_as_much() -> None:
    planner = planner_of(cut="pool1")
    cool = planner.plan(1, records(b={"cpu_hz": 1.8e9, "temperature_c": 60.0}))
    hot = planner.plan(2, records(b={"cpu_hz": 1.2e9, "temperature_c": 83.0}))

    def forward_s(planned: PlannedRound) -> dict[str, float]:
        return {
            device: phases[Phase.FORWARD]
            for cluster in planned.plan.clusters
            for device, phases in zip(cluster.devices, cluster.phases, strict=True)
        }

    assert forward_s(hot)["b"] == pytest.approx(1.5 * forward_s(cool)["b"])
    assert forward_s(hot)["a"] == pytest.approx(forward_s(cool)["a"])
    assert "computes 1.5 times as long as measured: it is at 83 °C" in hot.assumed["b"]
    idle = planner.plan(3, records(b={"cpu_hz": 0.6e9, "temperature_c": 50.0}))
    assert "b" not in idle.assumed
    barely = planner.plan(4, records(b={"cpu_hz": 1e6, "temperature_c": 95.0}))
    assert forward_s(barely)["b"] == pytest.approx(MOST_TIMES_SLOWER * forward_s(cool)["b"])


def test_a_device_rests_before_its_budget_of_bytes_is_exceeded_even_after_a_resume() -> None:
    budgets = {"a": 2_500_000, "*": 100_000_000}
    planner = planner_of(byte_budgets=budgets)
    known = records()
    assert planner.plan(1, known).plan.left_out == {}
    with_metrics(known, 1, a=1_000_000, b=1_000_000)
    assert planner.plan(2, known).plan.left_out == {}
    assert planner.plan(2, known).plan.left_out == {}  # The same metrics count once.
    with_metrics(known, 2, a=1_000_000, b=1_000_000)
    resumed = planner_of(byte_budgets=budgets)
    resumed.plan(3, known)
    resumed.recall(planner.remember())
    resumed_why = resumed.plan(3, known).plan.left_out
    assert resumed_why == {
        "a": "rests: 2 MB of its budget of 2.5 MB are used, and a round takes 1 MB"
    }
    assert planner.plan(3, known).plan.left_out == resumed_why


def test_a_device_rests_before_its_budget_of_joules_is_exceeded_even_after_a_resume() -> None:
    budgets = {"a": 25.0, "*": 1e6}
    planner = planner_of(energy_budgets=budgets)
    for joules in (9.0, 9.0):
        assert planner.plan(1, records()).resting == ()
        planner.note_energy({"a": joules, "b": 500.0})
    resumed = planner_of(energy_budgets=budgets)
    resumed.recall(planner.remember())
    said = "rests: 18 J of its budget of 25 J are used, and a round takes 9 J"
    for each in (planner, resumed):
        assert dict(each.plan(3, records()).plan.left_out) == {"a": said}


def test_watts_are_those_of_the_job_or_of_a_devices_processor() -> None:
    stated = {"idle_w": 1.0, "compute_w": 0.0, "radio_w": 0.0}
    planned = planner_of(power={"a": stated, "b": "laptop"}).plan(1, records()).plan
    assert planned.predicted_s is not None
    assert planned.joules["a"] == pytest.approx(planned.predicted_s)
    assert planned.joules["b"] > 10 * planned.predicted_s
    assert planned.joules["c"] > 2 * planned.predicted_s
