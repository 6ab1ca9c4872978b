"""Programs of different versions: what each says to the other, and what becomes of it.

`tests/data/wire_1.json` and those after it hold what programs of these versions of the wire say:
one message of each kind, recorded in real runs.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from torch import nn

from edge_coordinator.devices.admission import Admission
from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.devices.tolerance import Tolerance
from runtime.bus.bus import Delivery
from runtime.bus.memory_bus import MemoryBroker
from runtime.wire.commands import Refused
from runtime.wire.control import decode_command, decode_reply
from runtime.wire.fields import Message
from runtime.wire.published import DeviceStatus
from runtime.wire.schemas.published import PUBLISHED
from runtime.wire.versions import OLDEST_WIRE, WIRE, Incompatible, UnknownCommand, Versions
from tests.builders import make_job, run_job, same_bits, weights_of
from tests.noise import random_samples, shards
from tests.root import ROOT
from tests.serving import serving_agent
from tests.turn import ASSIGNMENT, CHUNK_BYTES, READY, RUN, STATUS, TOPICS

DATA = ROOT / "tests" / "data"
SETTINGS = {"model.name": "mlp", "training.rounds": 1, "plan.clusters": 1, "plan.cut": "fc1"}


class Adding(nn.Module):
    """Takes its inputs by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 10)

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        """[sample, 3] to [sample, 10]."""
        added: torch.Tensor = self.last(self.first(a).relu())
        return added


def _read(name: str) -> dict[str, dict[str, Any]]:
    tree: dict[str, dict[str, Any]] = json.loads((DATA / name).read_text())
    return tree


def _name(topic: str, payload: bytes) -> str | None:
    """Name of a JSON message as `tests/data` spells it; None for a frame."""
    place, *levels = topic.split("/")[2:]
    leaf = levels[-1] if levels else place
    if leaf in {"command", "reply"}:
        return f"{leaf}/{json.loads(payload)['kind']}"
    if place == "cluster" or leaf not in {*PUBLISHED, "challenge"}:
        return None
    return f"{place}/{leaf}" if levels else place


def _decode(name: str) -> Callable[..., Message]:
    if name.startswith("command/") or name.endswith("/challenge"):
        return decode_command
    return decode_reply if name.startswith("reply/") else PUBLISHED[_schema_name(name)].decode


def _schema_name(name: str) -> str:
    place, _, leaf = name.partition("/")
    return leaf if place == "device" else place


class RecordingBroker(MemoryBroker):
    """Keeps all JSON messages."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, bytes]] = []

    def route(self, topic: str, payload: bytes, *, retain: bool) -> None:
        name = _name(topic, payload) if payload else None
        if name is not None:
            self.said.append((name, payload))
            payload = self.pass_on(name, payload)
        super().route(topic, payload, retain=retain)

    def pass_on(self, name: str, payload: bytes) -> bytes:  # noqa: ARG002
        return payload


class NewerBroker(RecordingBroker):
    """Has whoever speaks say more, in each message and in each part of one."""

    def pass_on(self, name: str, payload: bytes) -> bytes:
        if name.endswith("/challenge"):  # Each of its own is recognised by its bytes.
            return payload
        return json.dumps(_with_more(_decode(name)(payload))).encode()


def _with_more(value: object) -> object:
    if isinstance(value, BaseModel):
        fields = {name: _with_more(each) for name, each in vars(value).items()}
        return fields | {"of_tomorrow": {"a": [1]}}
    if isinstance(value, dict):
        return {name: _with_more(each) for name, each in value.items()}
    return [_with_more(each) for each in value] if isinstance(value, tuple) else value


async def test_whatever_a_newer_peer_adds_is_counted_and_changes_no_bit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own, plain, newer = shards([40, 40], (1, 28, 28)), RecordingBroker(), NewerBroker()
    model, [told] = await run_job(own, SETTINGS, broker=plain)
    other, [report] = await run_job(own, SETTINGS, broker=newer)
    assert same_bits(weights_of(model), weights_of(other))
    assert not told.unknown_fields
    assert report.unknown_fields.keys() == own.keys()
    assert report.dropped == told.dropped
    assert caplog.text.count("d0 sends fields that are unknown here, and ignored: of_tomorrow") == 1
    assert caplog.text.count("d0 ignores fields that are unknown here") == 1


@pytest.mark.parametrize("wire", range(OLDEST_WIRE, WIRE + 1))
def test_what_a_peer_of_an_earlier_release_says_is_understood(wire: int) -> None:
    messages, unknown = _read(f"wire_{wire}.json"), list[str]()
    assert {"command/assignment", "command/join", "reply/ready", "round"} <= messages.keys()
    for name, message in messages.items():
        text = json.dumps(message).encode()
        assert _decode(name)(text, on_unknown=lambda *told: unknown.append(str(told)))
    assert not unknown


NEWER = STATUS.model_copy(update={"version": "9.0; wire 8-9"})
OLD = DeviceStatus.model_validate(_read("wire_1.json")["device/status"])


@pytest.mark.parametrize(
    ("status", "topic", "told", "reason"),
    [
        (
            NEWER,
            TOPICS.command("d0"),
            Incompatible(version=str(Versions.own())).encode(),
            "speaks versions 8 to 9 of the wire (cpsl-edge 9.0), this coordinator {own}: bring "
            "this coordinator up to date",
        ),
        (
            OLD,
            TOPICS.command_of_wire_1("d0"),
            b'{"kind": "speaks version 1 of the wire (cpsl-edge 0.2.0), this coordinator versions ',
            "speaks version 1 of the wire (cpsl-edge 0.2.0), this coordinator {own}: bring it up "
            "to date",
        ),
    ],
    ids=["newer", "older"],
)
async def test_a_device_of_a_far_version_is_barred_and_both_sides_are_told_both_versions(
    status: DeviceStatus, topic: str, told: bytes, reason: str
) -> None:
    broker = MemoryBroker()
    async with broker.connect("coordinator") as bus, broker.connect("d0") as device:
        await device.subscribe(topic)
        channel = DeviceChannel(
            bus,
            TOPICS,
            run=RUN,
            tolerance=Tolerance(60, 15, max_unusable=10),
            chunk_bytes=CHUNK_BYTES,
        )
        message = memoryview(status.encode())
        channel.inbound.receive(Delivery(TOPICS.status("d0"), message, retained=True))
        heard = await anext(each async for each in device.events() if isinstance(each, Delivery))
    assert bytes(heard.payload).startswith(told)
    assert channel.registry.barred == {"d0": reason.format(own=Versions.own().in_words())}
    assert not channel.registry.unassigned


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, ""),
        ({"model.options": {"input_shape": [1, 28, 28]}}, ""),
        (
            {"training.phi": 0.5},
            "aggregated gradients (training.phi) are of version 3: bring it up to date, or take "
            "training.phi = 0",
        ),
        (
            {
                "model.name": f"{__name__}:Adding",
                "model.options": {"input_shape": {"a": [3]}},
                "plan.cut": "first",
            },
            "options of the network that are tables or lists of more than whole numbers "
            "(model.options) are of version 3: bring it up to date, or take a factory that says "
            "them itself, as by an attribute input_shape",
        ),
    ],
)
async def test_an_older_device_is_barred_from_a_job_that_has_what_it_does_not_know(
    settings: Mapping[str, object], reason: str
) -> None:
    async with MemoryBroker().connect("coordinator") as bus:
        channel = DeviceChannel(
            bus,
            TOPICS,
            run=RUN,
            tolerance=Tolerance(60, 15, max_unusable=10),
            chunk_bytes=CHUNK_BYTES,
        )
        shape = (3,) if "model.name" in settings else (1, 28, 28)
        Admission(
            make_job({"d0": random_samples(9, shape, num_classes=10, seed=0)}, settings)[0],
            channel,
            print,
        )
    registry = channel.registry
    registry.note_status("d0", STATUS.model_copy(update={"version": "0.3.0; wire 2"}))
    said = f"speaks version 2 of the wire (cpsl-edge 0.3.0), and {reason}"
    assert registry.barred == ({"d0": said} if reason else {})
    registry.note_status("d1", STATUS)
    assert "d1" not in registry.barred


async def test_a_coordinator_of_version_0_2_is_told_why_it_gets_no_device(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = MemoryBroker()
    assignment = json.dumps(_read("wire_1.json")["command/assignment"]).encode()
    async with (
        serving_agent(broker.connect("d0"), broker, chunk_bytes=CHUNK_BYTES),
        broker.connect("old") as old,
    ):
        await old.subscribe(TOPICS.reply_of_wire_1("d0"))
        for _ in range(2):
            broker.route(TOPICS.command_of_wire_1("d0"), assignment, retain=False)
        heard = await anext(each async for each in old.events() if isinstance(each, Delivery))
    refused = decode_reply(heard.payload)
    assert isinstance(refused, Refused)
    assert refused.reason.startswith(f"speaks {Versions.own().in_words()}, this coordinator")
    assert caplog.text.count("version 1 of the wire (cpsl-edge 0.2 or older), this agent") == 1


async def test_a_device_tells_of_a_coordinator_that_is_too_new_and_of_commands_it_does_not_know(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = MemoryBroker()
    async with serving_agent(broker.connect("d0"), broker, chunk_bytes=CHUNK_BYTES) as (_, peer):
        await peer.ask("command", Incompatible(version="9.0; wire 8-9"))
        for _ in range(3):
            broker.route(TOPICS.command("d0"), b'{"kind":"dance","run":7}', retain=False)
        assert await peer.reply() == UnknownCommand(command="dance")
        await peer.ask("command", ASSIGNMENT)
        assert await peer.reply() == READY
    assert "which speaks versions 8 to 9 of the wire (cpsl-edge 9.0), this agent" in caplog.text
    assert caplog.text.count("no command is called 'dance' here") == 1
