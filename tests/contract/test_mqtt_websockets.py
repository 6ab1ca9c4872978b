"""A bus over WebSockets, and what is said where a URL names another kind of listener."""

from pathlib import Path

import pytest

from runtime.bus.bus import Delivery
from runtime.bus.mqtt_bus import MqttBus
from runtime.bus.paho_client import websocket_frame
from runtime.errors import BusError
from tests.contract.fake_broker import until
from tests.outside.mosquitto import mosquitto


async def test_messages_pass_websockets_in_both_directions(tmp_path: Path) -> None:
    async with (
        mosquitto(tmp_path) as at,
        await MqttBus.connect(f"ws://{at.web}/mqtt", client_id="w", wait=False) as bus,
    ):
        await bus.subscribe("t")
        for payload in (b"short", bytes(range(256)) * 40):
            await bus.publish("t", payload, retain=False)
            delivery = await until(bus, Delivery)
            assert isinstance(delivery, Delivery)
            assert delivery.payload == payload


@pytest.mark.filterwarnings("ignore:unclosed <:ResourceWarning")  # paho's, after a failure
async def test_a_url_of_the_wrong_kind_is_told_what_may_be_right(tmp_path: Path) -> None:
    async with mosquitto(tmp_path) as at:
        for url, words in {
            f"mqtts://{at.plain}": "without TLS there, write mqtt://",
            f"wss://{at.web}": "without TLS there, write mqtt:// or ws://",
            f"ws://{at.plain}": "it takes no WebSockets there",
            f"mqtt://{at.web}": "if it wants TLS, write mqtts:// or wss://",
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
