"""A bus over WebSockets, and what is said where a URL names another kind of listener."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_coordinator.local.broker import find_mosquitto
from runtime.bus.bus import Delivery
from runtime.bus.mqtt_bus import MqttBus
from runtime.bus.paho_client import websocket_frame
from runtime.errors import BusError
from tests.contract.fake_broker import until
from tests.ports import free_port


@asynccontextmanager
async def _two_listeners(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """Run Mosquitto; the addresses of a listener for WebSockets, and of one for MQTT."""
    executable = find_mosquitto()
    if executable is None:
        pytest.skip("mosquitto is not installed here")
    web, plain = free_port(), free_port()
    path = folder / "mosquitto.conf"
    path.write_text(
        f"listener {web} 127.0.0.1\nprotocol websockets\nlistener {plain} 127.0.0.1\n"
        "allow_anonymous true\nlog_dest none\n"
    )
    process = await asyncio.create_subprocess_exec(executable, "-c", path)
    try:
        async with await MqttBus.connect(f"mqtt://127.0.0.1:{plain}", client_id="a", wait=True):
            yield f"127.0.0.1:{web}", f"127.0.0.1:{plain}"
    finally:
        process.terminate()
        await process.wait()


async def test_messages_pass_websockets_in_both_directions(tmp_path: Path) -> None:
    async with (
        _two_listeners(tmp_path) as (web, _),
        await MqttBus.connect(f"ws://{web}/mqtt", client_id="w", wait=False) as bus,
    ):
        await bus.subscribe("t")
        for payload in (b"short", bytes(range(256)) * 40):
            await bus.publish("t", payload, retain=False)
            delivery = await until(bus, Delivery)
            assert isinstance(delivery, Delivery)
            assert delivery.payload == payload


@pytest.mark.filterwarnings("ignore:unclosed <:ResourceWarning")  # paho's, after a failure
async def test_a_url_of_the_wrong_kind_is_told_what_may_be_right(tmp_path: Path) -> None:
    async with _two_listeners(tmp_path) as (web, plain):
        for url, words in {
            f"mqtts://{plain}": "without TLS there, write mqtt://",
            f"wss://{web}": "without TLS there, write mqtt:// or ws://",
            f"ws://{plain}": "it takes no WebSockets there",
            f"mqtt://{web}": "if it wants TLS, write mqtts:// or wss://",
        }.items():
            with pytest.raises(BusError, match=words):
                await MqttBus.connect(url, client_id="x", wait=False)


@pytest.mark.parametrize("num_bytes", [0, 1, 125, 126, 65_535, 65_536])
def test_a_frame_is_that_of_the_standard(num_bytes: int) -> None:
    data = bytes(range(256)) * (num_bytes // 256 + 1)
    frame = websocket_frame(2, bytearray(data[:num_bytes]))
    length_bytes = {True: 0, num_bytes > 125: 2, num_bytes > 65_535: 8}[True]
    head, mask, masked = (
        frame[: 2 + length_bytes],
        frame[2 + length_bytes :][:4],
        frame[6 + length_bytes :],
    )
    assert head[0] == 0x82
    assert head[1] >> 7 == 1
    stated = head[1] & 0x7F if length_bytes == 0 else int.from_bytes(head[2:], "big")
    assert stated == num_bytes
    assert bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked)) == data[:num_bytes]
