"""What the coordinator can tell of a broker that asks for nothing."""

import socket

import pytest

from edge_coordinator.fleet.exposure import exposure_of
from runtime.bus.broker_url import parse_broker_url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mqtt://edge.local", "lets in whoever reaches it"),
        ("mqtt://user:secret@edge.local", "travel unencrypted"),
        ("mqtts://edge.local", None),
    ],
)
def test_a_way_without_tls_is_warned_of(url: str, words: str | None) -> None:
    said = exposure_of(parse_broker_url(url))
    assert words in said if words and said else said is words


@pytest.mark.parametrize(("address", "is_open"), [("0.0.0.0", True), ("127.0.0.1", False)])  # noqa: S104
def test_a_broker_of_this_machine_is_warned_of_where_others_reach_it(
    address: str,
    is_open: bool,  # noqa: FBT001
) -> None:
    with socket.create_server((address, 0)) as server:
        url = parse_broker_url(f"mqtt://127.0.0.1:{server.getsockname()[1]}")
        assert ("all interfaces" in (exposure_of(url) or "")) is is_open
