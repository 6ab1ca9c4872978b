"""What Home Assistant is told of a site, and what its templates make of our messages."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import jsonschema
from jinja2 import Environment, StrictUndefined

from edge_coordinator.monitor.client import follow_on
from edge_coordinator.monitor.home_assistant.announcer import Announcer
from edge_coordinator.monitor.home_assistant.discovery import (
    device_message,
    is_of_site,
    object_id,
    site_message,
)
from runtime.bus.bus import Bus, Delivery
from runtime.bus.memory_bus import MemoryBroker
from runtime.wire.fields import Message
from runtime.wire.published import CoordinatorStatus, DeviceStatus
from runtime.wire.topics import HomeAssistantTopics, Topics
from tests.sites import NOW_S, TOPICS, make_plan, make_profile, make_round
from tests.unit.edge_coordinator.monitor.home_assistant_schema import DEVICE_DISCOVERY

HOME = HomeAssistantTopics()
STATUS = DeviceStatus(state="online", session="s", since_unix_s=NOW_S, version="0.2.0")
AT_WORK = CoordinatorStatus(state="online", session="c", since_unix_s=NOW_S, phase="round 3 of 9")
PROFILE = make_profile("d0", 1.0)


def _states(message: bytes, says: Mapping[str, Message], *, before: str) -> dict[str, str]:
    """What Home Assistant shows of each sensor, as its templates work."""
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701
    environment.globals["as_datetime"] = lambda at_s: datetime.fromtimestamp(at_s, UTC)
    states = {}
    for key, sensor in json.loads(message)["components"].items():
        if "state_topic" not in sensor:
            continue  # It is taken back.
        value = json.loads(says[sensor["state_topic"]].encode())
        template = environment.from_string(sensor["value_template"])
        states[key] = template.render(value_json=value, this={"state": before})
    return states


def _device_states(**changes: object) -> dict[str, str]:
    profile = PROFILE.model_copy(update=changes)
    says = {TOPICS.status("d0"): STATUS, TOPICS.profile("d0"): profile}
    return _states(device_message(TOPICS, "d0", STATUS), says, before="unknown")


def _site_states(*, before: str, **changes: object) -> dict[str, str]:
    plan = make_plan("ab", left_out={"z": "too little free memory"})
    says = {
        TOPICS.coordinator_status: AT_WORK,
        TOPICS.round: make_round(3, **changes),
        TOPICS.plan: plan,
    }
    return _states(site_message(TOPICS), says, before=before)


def test_messages_are_as_home_assistant_documents_discovery() -> None:
    validator = jsonschema.Draft202012Validator(DEVICE_DISCOVERY)
    of_mae = site_message(TOPICS, metric="mae")
    for message in (site_message(TOPICS), of_mae, device_message(TOPICS, "pi-1.local", STATUS)):
        tree: dict[str, Any] = json.loads(message)
        validator.validate(tree)
        told = [each for each in tree["components"].values() if len(each) > 1]
        ids = [sensor["unique_id"] for sensor in told]
        assert len(set(ids)) == len(ids)


def test_templates_take_the_figures_from_what_is_published() -> None:
    assert _device_states(temperature_c=54.5, battery_fraction=0.875, load_fraction=0.25) == {
        "state": "online",
        "last_seen": datetime.fromtimestamp(PROFILE.measured_at_unix_s, UTC).isoformat(" "),
        "forward": "7.65",
        "backward": "4.0",
        "uplink": "43.2",
        "downlink": "98.7",
        "round_trip": "12.0",
        "temperature": "54.5",
        "battery": "87.5",
        "free_memory": "1230.0",
        "load": "25.0",
    }
    shown = _site_states(
        test_accuracy=0.5, round_s=1.234, lost={"b": "late", "a": "gone"}, before=""
    )
    assert shown == {
        "phase": "round 3 of 9",
        "round": "3",
        "accuracy": "50.0",
        "round_seconds": "1.23",
        "lost": "a, b",
        "left_out": "z",
    }


def test_what_was_not_measured_is_unknown_and_a_round_without_evaluation_keeps_the_last() -> None:
    shown = _device_states(compute=None, link=None)
    unknown = ("forward", "uplink", "round_trip", "temperature", "battery", "load")
    assert {shown[key] for key in unknown} == {"None"}
    assert _site_states(test_accuracy=None, before="41.5")["accuracy"] == "41.5"
    assert _site_states(lost={}, before="")["lost"] == "nobody"


async def test_the_figure_of_a_site_is_called_by_the_metric_of_its_run() -> None:
    broker = MemoryBroker()
    async with broker.connect("site") as site, broker.connect("home") as home:
        await home.subscribe(HOME.device(object_id("default")))
        async with _announcing(broker):
            await site.publish(TOPICS.coordinator_status, AT_WORK.encode(), retain=True)
            before = json.loads((await _next(home))[1])["components"]
            report = make_round(3, test_accuracy=None, metric="mae", test_metric=0.12345)
            await site.publish(TOPICS.round, report.encode(), retain=True)
            _, message = await _next(home)
    after = json.loads(message)["components"]
    assert before["accuracy"]["name"] == "Test accuracy"
    assert before["metric"] == after["accuracy"] == {"platform": "sensor"}
    assert after["metric"]["name"] == "Test mae"
    says = {TOPICS.coordinator_status: AT_WORK, TOPICS.round: report, TOPICS.plan: make_plan("a")}
    assert _states(message, says, before="")["metric"] == "0.1235"


def test_an_object_id_is_allowed_and_nobody_elses() -> None:
    names = ("a.b", "a_b", "a-b", "a__b", "a_-b", "a.-b")
    assert len({object_id("lab", name) for name in names}) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", object_id("lab", name)) for name in names)
    assert is_of_site(object_id("lab", "a_b"), "lab")
    assert is_of_site(object_id("lab"), "lab")
    for other in (object_id("lab_2"), object_id("lab.2"), object_id("lab2", "a"), "else_lab"):
        assert not is_of_site(other, "lab")


@asynccontextmanager
async def _announcing(broker: MemoryBroker) -> AsyncIterator[None]:
    async with broker.connect("announcer") as bus:
        announcer = Announcer(TOPICS, HOME)
        following = asyncio.create_task(follow_on(bus, announcer, on_quiet=announcer.tell))
        try:
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def _next(home: Bus) -> tuple[str, bytes]:
    async with asyncio.timeout(10):
        async for event in home.events():
            if isinstance(event, Delivery):
                return event.topic, bytes(event.payload)
    raise AssertionError


async def test_who_comes_is_told_who_is_forgotten_taken_back_and_a_birth_answered() -> None:
    broker = MemoryBroker()
    config = HOME.device(object_id("default", "d0"))
    async with broker.connect("device") as device, broker.connect("home") as home:
        await home.subscribe(HOME.every_device)
        async with _announcing(broker):
            await device.publish(TOPICS.status("d0"), STATUS.encode(), retain=True)
            told = await _next(home)
            assert told == (config, device_message(TOPICS, "d0", STATUS))
            assert broker.retained[config] == told[1]
            await home.publish(HOME.birth, b"online", retain=False)
            assert await _next(home) == told
            await device.publish(TOPICS.status("d0"), b"", retain=True)
            assert await _next(home) == (config, b"")
        assert not broker.retained


async def test_who_was_forgotten_meanwhile_is_taken_back_at_the_next_start() -> None:
    broker, other = MemoryBroker(), Topics("other")
    elsewhere = HOME.device(object_id("other", "d0"))
    async with broker.connect("device") as device, broker.connect("home") as home:
        await device.publish(elsewhere, device_message(other, "d0", STATUS), retain=True)
        gone = HOME.device(object_id("default", "gone"))
        await device.publish(gone, device_message(TOPICS, "gone", STATUS), retain=True)
        await device.publish(TOPICS.coordinator_status, AT_WORK.encode(), retain=True)
        site = HOME.device(object_id("default"))
        await home.subscribe(gone)
        await home.subscribe(site)
        await _next(home)
        async with _announcing(broker):
            assert await _next(home) == (gone, b"")
            assert (await _next(home))[0] == site
    assert broker.retained.keys() == {elsewhere, site, TOPICS.coordinator_status}
