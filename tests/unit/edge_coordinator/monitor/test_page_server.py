"""The page's small server: what it passes on, and what it refuses."""

import asyncio
import http.client
import json
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from edge_coordinator.__main__ import main
from edge_coordinator.monitor.web.app import site_app
from edge_coordinator.monitor.web.hub import Hub
from edge_coordinator.monitor.web.parts import SiteParts
from edge_coordinator.monitor.web.serving import Address, say_where, served
from runtime.errors import SettingsError
from tests.root import ROOT
from tests.sites import TOPICS, Site, make_plan


async def _parts(events: AsyncIterator[str]) -> dict[str, object]:
    text = await anext(events)
    told: dict[str, object] = json.loads(text.removeprefix("data: "))
    return told


async def test_a_watcher_gets_all_parts_and_then_only_what_is_new() -> None:
    hub = Hub()
    hub.put({"a": "1", "b": "2"})
    events = hub.events()
    assert await _parts(events) == {"a": 1, "b": 2}
    hub.put({"a": "1", "b": "3"})
    hub.put({"b": "4", "c": "5"})
    assert await _parts(events) == {"b": 4, "c": 5}
    hub.close()
    assert [event async for event in events] == []


async def test_the_last_part_is_told_before_the_end() -> None:
    hub = Hub()
    hub.put({"a": "1"})
    events = hub.events()
    await _parts(events)
    hub.put({"a": "2"})
    hub.close()
    assert [event async for event in events] == ['data: {"a":2}\n\n']


async def test_a_change_wakes_every_watcher() -> None:
    hub = Hub()
    watchers = [asyncio.create_task(_parts(hub.events())) for _ in range(10)]
    await asyncio.sleep(0)
    hub.put({"a": "1"})
    assert await asyncio.gather(*watchers) == [{"a": 1}] * 10


async def test_of_a_site_only_the_devices_that_changed_are_told_again() -> None:
    hub = Hub()
    parts = SiteParts(hub, broker="mqtt://edge:1883")
    site = Site().coordinator().device("a").device("b").hear(TOPICS.plan, make_plan("ab"))
    parts.show(site.now)
    events = hub.events()
    first = await _parts(events)
    assert first.keys() == {"site", "plan", "round", "history", "device/a", "device/b"}
    parts.show(site.device("b", state="offline").now)
    site.view.receive(TOPICS.status("a"), b"", retained=True, now_s=0.0)
    parts.show(site.now)
    told = await _parts(events)
    assert told.keys() == {"device/a", "device/b"}
    assert told["device/a"] is None


def _get(
    url: str, path: str, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    place = url.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(place, timeout=10)
    connection.request("GET", path, headers=dict(headers or {}))
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/static/__init__.py",
        "/static/",
        "/../../../etc/passwd",
        "/static/%00",
    ],
)
async def test_nothing_but_the_pages_own_files_is_served(path: str) -> None:
    async with served(site_app(Hub(), bound_to="127.0.0.1"), Address(port=0).listen()) as url:
        assert (await asyncio.to_thread(_get, url, path))[0] == 404
        status, headers, body = await asyncio.to_thread(_get, url, "/static/main.js")
    assert (status, headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert b"EventSource" not in body
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:8420", 200),
        ("[::1]:8420", 200),
        ("evil.example", 421),
        ("evil.example:8420", 421),
        ("127.0.0.1.evil.example", 421),
    ],
)
async def test_a_local_page_answers_to_no_other_name(host: str, status: int) -> None:
    async with served(site_app(Hub(), bound_to="127.0.0.1"), Address(port=0).listen()) as url:
        assert (await asyncio.to_thread(_get, url, "/", {"Host": host}))[0] == status


async def test_every_file_asks_for_nothing_from_elsewhere() -> None:
    static = ROOT / "edge_coordinator" / "monitor" / "web" / "static"
    for file in static.glob("*.*"):
        text = file.read_text(encoding="utf-8")
        addresses = [word for word in text.split() if "//" in word and "http" in word]
        is_named = file.suffix == ".txt" or "uPlot" in file.name or file.suffix == ".svg"
        assert is_named or not addresses, (file.name, addresses)


def test_a_port_that_is_taken_is_named_and_the_usual_one_has_a_stand_in() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"at 127.0.0.1 port {port}: Address already"):
            Address(port=port).listen()
    with Address().listen() as first, Address().listen() as second:
        assert first.getsockname() != second.getsockname()


def test_who_serves_beyond_this_machine_is_told_who_can_see_it() -> None:
    said: list[str] = []
    say_where("http://127.0.0.1:1/", Address(), said.append)
    assert said == ["page: http://127.0.0.1:1/"]
    say_where("http://edge:1/", Address("0.0.0.0"), said.append)  # noqa: S104
    assert "no password" in said[-1]


def test_a_mistake_is_said_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        (["show", str(tmp_path)], "holds no rounds.jsonl"),
        (["show", str(tmp_path / "nosuch")], "is not a directory"),
        (
            ["monitor", "--web", "--once"],
            "--web goes without --once, --prometheus and --home-assistant",
        ),
        (["monitor", "--web", "--bind", "203.0.113.7"], "cannot be served at 203.0.113.7"),
        (["monitor", "--direct", "ws://a"], "take --web or --write-page with it"),
        (["monitor", "--web", "--direct", "mqtt://a"], "or wss://HOST:PORT, not mqtt://a:1883"),
        (["monitor", "--web", "--direct", "wss://u:secret@a"], "without user and password"),
        (["monitor", "--web", "--direct", "ws://a", "--fleet", "f"], "go without --fleet"),
        (["monitor", "--write-page", str(tmp_path / "no" / "x")], "cannot write the page to"),
    ):
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1
