"""What a broker's URL may be, and what is said of one that is none."""

from pathlib import Path

import pytest

from runtime.bus.broker_url import TlsFiles, parse_broker_url
from runtime.bus.mqtt_bus import MqttBus
from runtime.errors import SettingsError


def test_a_url_names_the_broker_and_hides_the_password() -> None:
    url = parse_broker_url("mqtts://pi:s%40crt@broker.local")
    assert (url.host, url.port, url.tls) == ("broker.local", 8883, True)
    assert (url.username, url.password) == ("pi", "s@crt")
    assert str(url) == "mqtts://broker.local:8883"
    assert "crt" not in repr(url)
    assert str(parse_broker_url("mqtt://[::1]")) == "mqtt://[::1]:1883"
    assert str(parse_broker_url("wss://broker.local")) == "wss://broker.local:443/mqtt"
    assert str(parse_broker_url("ws://broker.local:9001/x/y")) == "ws://broker.local:9001/x/y"


@pytest.mark.parametrize(
    "text",
    ["", "localhost:1883", "http://host", "mqtt://", "mqtt://h:0", "mqtt://u:pw@h:x", "mqtt://h/a"],
)
async def test_a_url_that_is_none_says_what_is_right(text: str) -> None:
    with pytest.raises(SettingsError, match=r"write mqtt://host") as caught:
        await MqttBus.connect(text, client_id="a", wait=False)
    assert "pw" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize("secret", ["s3cret/x", "s3cret#x", "s3cret?x", "s3c://ret/x", "12/s3cret"])
def test_a_password_that_breaks_its_url_is_not_shown(secret: str) -> None:
    with pytest.raises(SettingsError, match=r"write / as %2F") as caught:
        parse_broker_url(f"mqtt://user:{secret}@127.0.0.1")
    assert "s3c" not in str(caught.value)
    assert "user:***@127.0.0.1" in str(caught.value)


async def test_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    missing = TlsFiles(cafile=tmp_path / "none.pem")
    with pytest.raises(SettingsError, match=r"none\.pem"):
        await MqttBus.connect("mqtts://h", client_id="a", wait=False, tls=missing)
    with pytest.raises(SettingsError, match="mqtts://"):
        await MqttBus.connect("mqtt://h", client_id="a", wait=False, tls=missing)
