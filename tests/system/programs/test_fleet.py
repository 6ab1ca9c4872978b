"""A fleet made by its command, on a real Mosquitto with TLS."""

import asyncio
import os
import re
import secrets
import stat
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_coordinator.local.broker import find_mosquitto
from runtime.bus.broker_url import TlsFiles
from runtime.bus.mqtt_bus import MqttBus
from runtime.errors import BusError, SettingsError
from runtime.wire.topics import Topics
from tests.outside.ports import free_port

pytest.importorskip("cryptography")
MOSQUITTO = find_mosquitto()
if MOSQUITTO is None:
    pytest.skip("mosquitto is not installed here", allow_module_level=True)

from edge_coordinator.__main__ import main  # noqa: E402
from edge_coordinator.fleet.check import Finding, FleetCheck, arrivals  # noqa: E402
from edge_coordinator.fleet.fleet import FleetFolder  # noqa: E402
from edge_coordinator.fleet.record import FleetRecord  # noqa: E402

DIGITS = {"data": "digits", "engine": "onnxruntime", "wait": True}


@pytest.fixture
def fleet(tmp_path: Path) -> FleetFolder:
    """Make a fleet of three devices."""
    path = tmp_path / "fleet"
    record = FleetRecord(hosts=("localhost",), port=free_port(), site="farm", days=30, seen_at=path)
    fleet = FleetFolder.make(path, record)
    for number in range(3):
        fleet.add(f"pi-{number}", {**DIGITS, "shard": f"{number}/3"})
    return fleet


@asynccontextmanager
async def broker(fleet: FleetFolder, log: Path | None = None) -> AsyncIterator[Process]:
    """Run Mosquitto with the fleet's configuration, and tell `log` all."""
    path = fleet.path / "broker" / "mosquitto.conf"
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # It would leave root, and tmp_path is closed.
        path.write_text(f"{path.read_text()}user root\n")
    assert MOSQUITTO
    with (log or Path(os.devnull)).open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(MOSQUITTO, "-v", "-c", path), stderr=output, stdout=output
        )
    try:
        async with await connected(fleet, "coordinator", wait=True):
            yield process
    finally:
        process.terminate()
        await process.wait()


async def connected(
    fleet: FleetFolder, folder: str, *, client_id: str | None = None, wait: bool = False
) -> MqttBus:
    names = ("authority.pem", "certificate.pem", "key.pem")
    return await MqttBus.connect(
        fleet.record.url,
        client_id=client_id or secrets.token_hex(8),
        wait=wait,
        tls=TlsFiles(*(fleet.path / folder / name for name in names)),
    )


async def findings(fleet: FleetFolder) -> list[Finding]:
    found: list[Finding] = []
    await FleetCheck(fleet, found.append).run()
    return found


def test_keys_are_their_owners_alone(fleet: FleetFolder) -> None:
    for key in fleet.path.rglob("*.pem"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700


async def test_no_device_speaks_as_another_hears_its_tensors_or_publishes_plans(
    fleet: FleetFolder,
) -> None:
    async with broker(fleet):
        assert [finding for finding in await findings(fleet) if not finding.holds] == []


async def test_an_operator_hears_what_is_published_asks_and_can_do_nothing_else(
    fleet: FleetFolder,
) -> None:
    fleet.add_operator("anna")
    topics = Topics("farm")
    asks = (topics.control, topics.queue_request, topics.tags("pi-0"), topics.settings("pi-0"))
    others = (topics.plan, topics.command("pi-0"), topics.status("pi-0"), topics.queue,
              topics.up("pi-0", "smashed"), topics.coordinator_status)  # fmt: skip
    told = (topics.status("pi-0"), topics.queue, topics.queue_status, topics.control_answer)
    secret = (topics.command("pi-0"), topics.down("pi-0", "gradient"), topics.reply("pi-0"))
    async with (
        broker(fleet),
        await connected(fleet, "operators/anna") as anna,
        await connected(fleet, "coordinator") as coordinator,
    ):
        assert await arrivals(coordinator, topics.whole_site, anna, [*asks]) == set(asks)
        for topic in others:
            with pytest.raises(BusError, match="not authorized"):
                await anna.publish(topic, b"check", retain=False)
        heard = await arrivals(anna, topics.whole_site, coordinator, [*secret, *told])
        assert heard == {*told}
        assert [finding.claim for finding in await findings(fleet) if not finding.holds] == []
    with pytest.raises(SettingsError, match="'anna' has a certificate already"):
        fleet.add("anna", {})
    fleet.revoke("anna")
    with pytest.raises(SettingsError, match="'anna' was an operator; take another name"):
        fleet.add("anna", {})


async def test_the_check_finds_rights_that_are_too_wide(fleet: FleetFolder) -> None:
    rights = fleet.path / "broker" / "access-list"
    rights.write_text("pattern readwrite #\n")
    async with broker(fleet):
        failed = {finding.claim for finding in await findings(fleet) if not finding.holds}
    assert {
        "a device does not hear another's tensors",
        "the monitor does not hear tensors",
        "pi-0 cannot publish as another device",
        "pi-0 cannot publish a plan",
        "pi-0 cannot command another device",
    } <= failed


async def test_who_is_revoked_is_mute_at_once_and_not_let_in_again(fleet: FleetFolder) -> None:
    topics = Topics("farm")
    async with (
        broker(fleet),
        await connected(fleet, "devices/pi-0") as revoked,
        await connected(fleet, "devices/pi-1") as other,
    ):
        await revoked.publish(topics.metrics("pi-0"), b"", retain=False)
        fleet.revoke("pi-0")
        assert "takes it up" in fleet.tell_broker()
        with pytest.raises(BusError, match="not authorized"):
            await _publish_until_refused(revoked, topics.metrics("pi-0"))
        (folder,) = (fleet.path / "revoked").iterdir()
        with pytest.raises(BusError, match="it may not take our certificate"):
            await connected(fleet, f"revoked/{folder.name}")
        await other.publish(topics.metrics("pi-1"), b"", retain=False)
        assert [finding.claim for finding in await findings(fleet) if not finding.holds] == []


async def test_rotated_certificates_are_taken_up_and_the_old_ones_end(fleet: FleetFolder) -> None:
    old = {name: (fleet.path / "devices/pi-0" / name).read_bytes() for name in ("certificate.pem",
           "key.pem", "authority.pem")}  # fmt: skip
    fleet.rotate("pi-0", keeps_old=True)
    (fleet.path / "old").mkdir()
    for name, content in old.items():
        (fleet.path / "old" / name).write_bytes(content)
    async with broker(fleet) as process:
        async with await connected(fleet, "old"), await connected(fleet, "devices/pi-0"):
            pass
        fleet.rotate("pi-0", keeps_old=False)
        fleet.rotate("broker", keeps_old=False)
        fleet.tell_broker()
        with pytest.raises(BusError):
            await _connect_until_refused(fleet, "old")
        async with await connected(fleet, "devices/pi-0"):
            assert process.returncode is None


async def test_no_message_tells_the_client_id_by_which_a_session_could_be_taken(
    fleet: FleetFolder, tmp_path: Path
) -> None:
    log = tmp_path / "broker.log"
    async with broker(fleet, log), await connected(fleet, "monitor") as monitor:
        config = f"{fleet.path}/devices/pi-0/agent.toml"
        agent = await _start("device_agent", "--config", config)
        await monitor.subscribe(Topics("farm").status("pi-0"))
        heard = b""
        async for event in monitor.events():
            if payload := getattr(event, "payload", b""):
                heard = bytes(payload)
                break
        agent.terminate()
        await agent.communicate()
    client_ids = set(re.findall(r"New client connected from \S+ as (pi-0-\w+)", log.read_text()))
    assert client_ids
    for client_id in client_ids:
        assert client_id.removeprefix("pi-0-").encode() not in heard


def test_a_device_is_let_in_once(fleet: FleetFolder, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("pi-0", "coordinator", "a b"):
        with pytest.raises(SettingsError, match=name):
            fleet.add(name, {})
    assert main(["fleet", "list", str(fleet.path)]) == 0
    assert "pi-0" in capsys.readouterr().out
    assert main(["fleet", "list", str(fleet.path.parent)]) == 1
    assert "is no fleet: make one" in capsys.readouterr().err


async def _publish_until_refused(bus: MqttBus, topic: str) -> None:
    while True:  # Mosquitto takes a signal up when it comes to it.
        await bus.publish(topic, b"", retain=False)


async def _connect_until_refused(fleet: FleetFolder, folder: str) -> None:
    while True:
        async with await connected(fleet, folder):
            pass


async def _start(*arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, stdout=PIPE, stderr=STDOUT
    )
