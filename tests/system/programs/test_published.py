"""What a live run publishes is what the shipped schemas say."""

import asyncio
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edge_coordinator.__main__ import main
from runtime.bus.bus import Delivery
from runtime.bus.memory_bus import MemoryBroker, MemoryBus
from runtime.errors import SettingsError
from runtime.wire.schemas.published import PUBLISHED, dump_schema, generate_schema, shipped_schema
from tests.builders import run_job
from tests.noise import shards

_LEAVES = {"status": "status", "profile": "profile", "metrics": "metrics"}


def _name(topic: str) -> str | None:
    match topic.split("/")[2:]:
        case ["device", _, leaf]:
            return _LEAVES.get(leaf)
        case ["coordinator", "status"]:
            return "coordinator"
        case ["plan" | "round" | "history" as name]:
            return name
    return None


async def _published(**settings: object) -> dict[str, list[dict[str, Any]]]:
    """Run a job; all that was published, by schema name."""
    broker = MemoryBroker()
    seen: dict[str, list[dict[str, Any]]] = {}

    async def watch(bus: MemoryBus) -> None:
        await bus.subscribe("cpsl/#")
        async for event in bus.events():
            if isinstance(event, Delivery):
                name = _name(event.topic) or "other"
                seen.setdefault(name, []).append(json.loads(bytes(event.payload)))

    async with broker.connect("watcher") as bus:
        watching = asyncio.create_task(watch(bus))
        given = {key.replace("__", "."): value for key, value in settings.items()}
        await run_job(shards([40, 40, 40], (1, 28, 28)), given, broker=broker)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return seen


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_shipped_schema_is_the_one_of_the_code(name: str) -> None:
    assert shipped_schema(name) == dump_schema(name), "cpsl schema --write runtime/schemas"


def test_an_unknown_schema_names_those_that_are() -> None:
    with pytest.raises(SettingsError, match="metrics, plan, round, history, coordinator"):
        generate_schema("plans")


def test_schemas_are_written_to_a_folder_that_need_not_be_there(tmp_path: Path) -> None:
    assert main(["schema", "--write", str(tmp_path / "new" / "schemas")]) == 0
    written = {path.stem: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.json")}
    assert written == {name: shipped_schema(name) for name in PUBLISHED}


async def test_live_messages_of_a_run_fit_the_shipped_schemas() -> None:
    seen = await _published(training__rounds=2, plan__clusters=2)
    assert seen.pop("other")
    assert seen.keys() == PUBLISHED.keys() - {"inference", "tags", "settings"}
    for name, messages in seen.items():
        validator = jsonschema.Draft202012Validator(json.loads(shipped_schema(name)))
        for message in messages:
            validator.validate(message)


async def test_a_device_of_a_planned_run_has_measured_its_layers_its_link_and_its_phases() -> None:
    seen = await _published(training__rounds=1, plan__clusters=1, plan__mode="auto")
    last = {profile["device"]: profile for profile in seen["profile"]}
    assert last.keys() == {"d0", "d1", "d2"}
    for profile in last.values():
        assert profile["compute"]["network"] == "lenet"
        # Of a layer that takes microseconds the difference of two timings may be nothing.
        assert sum(layer["forward_s"] for layer in profile["compute"]["layers"]) > 0
        assert profile["link"]["num_transfers"] > 8
        assert profile["label_counts"] is None
    for metrics in seen["metrics"]:
        phases = metrics["phases"]
        assert phases["server_s"] == 0
        assert min(phases[name] for name in ("forward_s", "upload_s", "backward_s")) > 0
