"""The page as a person sees it, in a real browser: of a site that is watched, and of records."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from edge_coordinator.monitor.client import watch
from edge_coordinator.monitor.web.app import site_app
from edge_coordinator.monitor.web.hub import Hub
from edge_coordinator.monitor.web.parts import SiteParts
from edge_coordinator.monitor.web.serving import Address, served
from runtime.bus.bus import Bus
from runtime.bus.memory_bus import MemoryBroker
from runtime.wire.fields import Message
from runtime.wire.history import History
from runtime.wire.published import CoordinatorStatus, DeviceStatus
from runtime.wire.run_control import SettingsReport
from tests.outside.browser import Page, browser_page, find_browser
from tests.sites import NOW_S, TOPICS, make_profile, measured_round, planned_round

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium here (Debian's package `chromium`)"
)
HOSTILE = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
HAS_DEVICES = "document.querySelectorAll('#devices-table tbody tr').length == {}"


@asynccontextmanager
async def _page_of(broker: MemoryBroker) -> AsyncIterator[Page]:
    """Open the page of a site in a browser."""
    hub = Hub()
    parts = SiteParts(hub, broker="mqtt://edge:1883")
    async with broker.connect("watcher") as bus:
        watching = asyncio.create_task(watch(bus, TOPICS, show=parts.show, from_the_start=True))
        app = site_app(hub, bound_to="127.0.0.1")
        try:
            async with (
                served(app, Address(port=0).listen()) as url,
                browser_page() as page,
            ):
                await page.window(1200, 900)
                await page.open(url)
                yield page
                hub.close()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _publish(bus: Bus, topic: str, message: Message) -> None:
    await bus.publish(topic, message.encode(), retain=True)


async def _publish_site(bus: Bus, clusters: Sequence[Sequence[str]], *, rounds: int) -> History:
    """Leave what a coordinator in the midst of a run leaves."""
    history = History()
    devices = [device for cluster in clusters for device in cluster]
    for number in range(1, rounds + 1):
        history.plan(planned_round(number, clusters), 50)
        lost = {devices[0]: f"silent {HOSTILE}"} if number == 2 else {}
        history.add(measured_round(number, devices, lost=lost))
    for device in devices:
        status = DeviceStatus(state="online", session="s", since_unix_s=NOW_S, engine="torch")
        await _publish(bus, TOPICS.status(device), status)
        settings = SettingsReport(applied={"threads": "1"}, refused={"min_cut": f"no {HOSTILE}"})
        profile = make_profile(device, 1.0).model_copy(update={"settings": settings})
        await _publish(bus, TOPICS.profile(device), profile)
    works = CoordinatorStatus(
        state="online", session="c", since_unix_s=NOW_S, run=7, phase=f"round {rounds} of 50"
    )
    await _publish(bus, TOPICS.coordinator_status, works)
    left_out = {"zero": HOSTILE}
    await _publish(
        bus,
        TOPICS.plan,
        planned_round(rounds, clusters, reason=f"because {HOSTILE}", left_out=left_out),
    )
    await _publish(bus, TOPICS.round, measured_round(rounds, devices))
    await _publish(bus, TOPICS.history, history.report(7))
    return history


async def test_who_comes_in_mid_run_sees_all_of_it_and_then_every_change() -> None:
    broker = MemoryBroker()
    async with broker.connect("agents") as bus:
        history = await _publish_site(bus, (("a", "b"), ("c",)), rounds=5)
        async with _page_of(broker) as page:
            await page.until(HAS_DEVICES.format(3))
            await page.until("document.querySelector('#now').innerText.includes('5 of 50')")
            now = (await page.text("#now")).replace("\u00a0", " ")
            for figure in (
                "90.00 %",
                "0.2000",
                "3.3 s",
                "3 s predicted, \u22129.0 %",
                "↑ 1 kB ↓ 2 kB",
            ):
                assert figure in now.replace("  ", " "), figure
            rows = (await page.text("#devices-table")).replace("\u00a0", " ")
            assert "43.2 Mbit/s" in rows
            assert "7.65 GFLOP/s" in rows
            assert f"threads = 1; no {HOSTILE}" in rows
            await page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            await page.until("document.querySelectorAll('#rounds-table tbody tr').length == 5")
            assert await page.evaluate("document.querySelectorAll('canvas').length") >= 7
            assert "lost a: silent" in await page.text("#events-list")
            assert "back a" in await page.text("#events-list")

            history.plan(planned_round(6, (("a", "b"), ("c",)), changed="a link got slower"), 50)
            history.add(measured_round(6, "abc"))
            await _publish(bus, TOPICS.round, measured_round(6, "abc"))
            await _publish(bus, TOPICS.history, history.report(7))
            offline = DeviceStatus(state="offline", session="s", since_unix_s=NOW_S)
            await _publish(bus, TOPICS.status("b"), offline)
            await page.until("document.querySelector('#now').innerText.includes('6 of 50')")
            await page.until("document.querySelectorAll('#rounds-table tbody tr').length == 6")
            await page.until(
                "document.querySelector('#events-list').innerText.includes('offline b')"
            )
            assert "replanned a link got slower" in await page.text("#events-list")
            await bus.publish(TOPICS.status("c"), b"", retain=True)
            await bus.publish(TOPICS.profile("c"), b"", retain=True)
            await page.until(HAS_DEVICES.format(2))
            assert page.complaints == []


async def test_without_a_history_the_curves_begin_with_what_is_heard() -> None:
    broker = MemoryBroker()
    async with broker.connect("agents") as bus, _page_of(broker) as page:
        await _publish_site(bus, (("a", "b"),), rounds=3)
        await bus.publish(TOPICS.history, b"", retain=True)
        await page.evaluate("document.querySelector('#curves details').open = true")
        rows = "document.querySelectorAll('#rounds-table tbody tr').length == {}"
        await page.until(rows.format(1))
        await _publish(bus, TOPICS.round, measured_round(4, "ab"))
        await page.until(rows.format(2))
        assert "best 87.50" in await page.text("#now")
        assert page.complaints == []


async def test_the_map_is_what_the_phases_say_and_a_keyboard_reads_it() -> None:
    broker = MemoryBroker()
    async with broker.connect("agents") as bus:
        await _publish_site(bus, (("a", "b"), ("c",)), rounds=1)
        async with _page_of(broker) as page:
            await page.until("document.querySelector('#map-what').innerText.includes('Round 1')")
            await page.evaluate("document.querySelector('#map details').open = true")
            await page.until("document.querySelectorAll('#map-table tbody tr').length == 6")
            await page.evaluate("document.querySelector('#map-canvas').focus()")
            for _ in range(3):
                await page.press("ArrowDown")
            told = (await page.text("#map-readout")).replace("\u00a0", " ")
            # Two local epochs: forward 1.5 s each, as measured, and 0.2 s as predicted.
            assert told.startswith("c, cluster 2: model down 100 ms, forward 3 s, upload 600 ms")
            assert "Predicted: model down 100 ms, forward 400 ms" in told
            cells = "[...document.querySelectorAll('#map-table tbody tr')].map(r => r.innerText)"
            of_c = [line for line in await page.evaluate(cells) if line.startswith("c")]
            starts = [line.replace("\u00a0", " ").split("\t")[-2] for line in of_c]
            # After the turn of a and b: 0.1, twice 1.5 + 0.3 + 0.02 + 0.3 + 0.4, 0.1 seconds.
            assert starts == ["5.24 s", "2.64 s"]
            await page.evaluate(
                "(which => {which.value = 1; which.dispatchEvent(new Event('change'))})"
                "(document.querySelector('#map-cluster'))"
            )
            alone = [line.split("\t")[:3] for line in await page.evaluate(cells)]
            assert alone == [["c", "2", "measured"], ["c", "2", "predicted"]]


async def test_what_peers_wrote_is_text_whatever_it_looks_like() -> None:
    broker = MemoryBroker()
    async with broker.connect("agents") as bus:
        await _publish_site(bus, (("a", "b"),), rounds=3)
        async with _page_of(broker) as page:
            await page.until(HAS_DEVICES.format(2))
            await page.until("document.querySelector('#plan-text').innerText.includes('because')")
            assert HOSTILE in await page.text("#plan-text")
            assert HOSTILE in await page.text("#events-list")
            assert (
                await page.evaluate("document.querySelectorAll('main img, main script').length")
                == 0
            )
            assert await page.evaluate("document.title") == "default: cpsl"
            # And if it were markup, the browser would not run it.
            script = "const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
            await page.evaluate(f"{script} document.body.append(s)")
            assert await page.evaluate("window.ran === undefined")
            assert any("Content Security Policy" in said for said in page.complaints)


async def test_devices_are_found_and_sorted_by_keyboard() -> None:
    broker = MemoryBroker()
    async with broker.connect("agents") as bus:
        await _publish_site(bus, (("pi-2", "pi-10"), ("fast",)), rounds=1)
        names = "[...document.querySelectorAll('#devices-table tbody th')].map(c => c.innerText)"
        async with _page_of(broker) as page:
            await page.until(HAS_DEVICES.format(3))
            assert await page.evaluate(names) == ["fast", "pi-2", "pi-10"]
            await page.evaluate("document.querySelector('#devices-table button').focus()")
            await page.press("Enter")
            assert await page.evaluate(names) == ["pi-10", "pi-2", "fast"]
            sort = "document.querySelector('#devices-table th').getAttribute('aria-sort')"
            assert await page.evaluate(sort) == "descending"
            await page.evaluate(
                "(find => {find.value = 'PI-1'; find.dispatchEvent(new Event('input'))})"
                "(document.querySelector('#find'))"
            )
            assert await page.evaluate(names) == ["pi-10"]
            assert await page.text("#devices-count") == "1 of 3 devices"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_three_hundred_devices_fit_a_phone(scheme: str) -> None:
    broker = MemoryBroker()
    clusters = [[f"dev-{index + 5 * number:03}" for index in range(5)] for number in range(60)]
    async with broker.connect("agents") as bus:
        await _publish_site(bus, clusters, rounds=20)
        async with _page_of(broker) as page:
            await page.scheme(scheme)
            await page.window(390, 844, is_phone=True)
            await page.until(HAS_DEVICES.format(300))
            width = "document.documentElement.scrollWidth"
            assert await page.evaluate(width) <= 390
            drawn = "document.querySelector('#map-canvas').getBoundingClientRect().height"
            await page.until(f"{drawn} > 2000")
            ground = "getComputedStyle(document.body).backgroundColor"
            assert (
                await page.evaluate(ground)
                == {
                    "light": "rgb(255, 255, 255)",
                    "dark": "rgb(18, 23, 28)",
                }[scheme]
            )
            assert page.complaints == []


async def test_a_page_whose_server_is_gone_says_so_and_keeps_what_it_shows() -> None:
    hub = Hub()
    hub.put({"site": json.dumps({"site": "default", "broker": "b", "coordinator": None})})
    async with browser_page() as page:
        async with served(site_app(hub, bound_to="127.0.0.1"), Address(port=0).listen()) as url:
            await page.open(url)
            await page.until("document.title == 'default: cpsl'")
            hub.close()
        await page.until("document.querySelector('#trouble').innerText.includes('out of reach')")
        assert await page.text("#state") == "no coordinator"
