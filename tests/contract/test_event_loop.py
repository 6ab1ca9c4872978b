"""A loop that watches neither sockets nor signals, as the one that Windows has by default."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_coordinator.local.broker import local_broker
from runtime.bus.bus import Delivery
from runtime.bus.mqtt_bus import MqttBus


class BareLoop(asyncio.SelectorEventLoop):
    """What is missing raises, as `asyncio.AbstractEventLoop` says."""

    def _missing(self, *_: object) -> None:
        raise NotImplementedError

    add_reader = add_writer = remove_reader = remove_writer = _missing  # type: ignore[assignment]


@pytest.fixture
def bare_loop() -> Iterator[asyncio.Runner]:
    """Run what is given on a loop without `add_reader`."""
    with asyncio.Runner(loop_factory=BareLoop) as runner:
        yield runner


def test_a_bus_carries_large_messages_on_a_loop_that_watches_no_sockets(
    bare_loop: asyncio.Runner,
) -> None:
    async def echo() -> list[bytes]:
        async with local_broker("mosquitto", port=None) as broker:
            bus = await MqttBus.connect(broker.url, client_id="a", wait=False)
            await bus.subscribe("a/+")
            sizes = (1, 3_000_000, 5)
            for number, size in enumerate(sizes):
                await bus.publish(f"a/{number}", bytes([number]) * size, retain=False)
            arrived: list[bytes] = []
            async for event in bus.events():
                if isinstance(event, Delivery):
                    arrived.append(bytes(event.payload))
                if len(arrived) == len(sizes):
                    break
            await bus.close()
            return arrived

    arrived = bare_loop.run(echo())
    assert [(set(payload), len(payload)) for payload in arrived] == [
        ({0}, 1),
        ({1}, 3_000_000),
        ({2}, 5),
    ]


def test_the_brokers_host_runs_on_a_loop_that_watches_no_sockets(
    bare_loop: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import asyncio\n"
        "def missing(*_): raise NotImplementedError\n"
        "for name in ('add_reader', 'add_writer', 'remove_reader', 'remove_writer',\n"
        "             'add_signal_handler', 'remove_signal_handler'):\n"
        "    setattr(asyncio.SelectorEventLoop, name, missing)\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def start() -> str:
        async with local_broker("mosquitto", port=None) as broker:
            return broker.kind

    assert bare_loop.run(start()).startswith("mosquitto")
