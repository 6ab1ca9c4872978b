"""The page as a person sees it, in a real browser, of a site that is watched.

It is the same page whether its server tells of the site, or the broker itself.
"""

import json
from pathlib import Path

import pytest

from edge_coordinator.monitor.web.app import site_app
from edge_coordinator.monitor.web.hub import Hub
from edge_coordinator.monitor.web.serving import Address, served
from runtime.wire.published import DeviceStatus
from tests.outside.browser import Page, browser_page, find_browser
from tests.outside.watched_site import (
    HOSTILE,
    Way,
    by_broker,
    by_file,
    by_server,
    opened,
    publish,
    publish_site,
)
from tests.sites import NOW_S, TOPICS, measured_round, planned_round, with_shared_samples

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium here (Debian's package `chromium`)"
)
HAS_DEVICES = "document.querySelectorAll('#devices-table tbody tr').length == {}"


async def _check_figures(page: Page) -> None:
    """Whether what five rounds came to is shown."""
    now = (await page.text("#now")).replace("\u00a0", " ")
    for figure in (
        "90.00 %",
        "0.2000",
        "3.3 s",
        "3 s predicted, \u22129.0 %",
        "↑ 1 kB ↓ 2 kB",
        "9 J\nmost by c: 4.5 J",
    ):
        assert figure in now.replace("  ", " "), figure
    rows = (await page.text("#devices-table")).replace("\u00a0", " ")
    assert "43.2 Mbit/s" in rows
    assert "7.65 GFLOP/s" in rows
    assert f"threads = 1; no {HOSTILE}" in rows


@pytest.mark.parametrize("way", [by_server, by_file])
async def test_who_comes_in_mid_run_sees_all_of_it_and_then_every_change(
    way: Way, tmp_path: Path
) -> None:
    async with way(tmp_path) as (bus, url):
        history = await publish_site(bus, (("a", "b"), ("c",)), rounds=5)
        async with opened(url) as page:
            await page.until(HAS_DEVICES.format(3))
            await page.until("document.querySelector('#now').innerText.includes('5 of 50')")
            await _check_figures(page)
            await page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            await page.until("document.querySelectorAll('#rounds-table tbody tr').length == 5")
            assert await page.evaluate("document.querySelectorAll('canvas').length") >= 7
            assert "lost a: silent" in await page.text("#events-list")
            assert "back a" in await page.text("#events-list")

            history.plan(planned_round(6, (("a", "b"), ("c",)), changed="a link got slower"), 50)
            history.add(measured_round(6, "abc"))
            await publish(bus, TOPICS.round, measured_round(6, "abc"))
            await publish(bus, TOPICS.history, history.report(7))
            offline = DeviceStatus(state="offline", session="s", since_unix_s=NOW_S)
            await publish(bus, TOPICS.status("b"), offline)
            await page.until("document.querySelector('#now').innerText.includes('6 of 50')")
            await page.until("document.querySelectorAll('#rounds-table tbody tr').length == 6")
            await page.until(
                "document.querySelector('#events-list').innerText.includes('offline b')"
            )
            assert "replanned a link got slower" in await page.text("#events-list")
            await publish(bus, TOPICS.plan, with_shared_samples(planned_round(7, (("a", "b"),))))
            await page.until("document.querySelector('#plan-text').innerText.includes('sorted')")
            said = (await page.text("#plan-text")).replace("\u00a0", " ")
            assert "8 s with sorted clusters (all with equal mini-batches), 9 s cut after x" in said
            clusters = " ".join((await page.text("#clusters-table")).split()).replace("\u00a0", " ")
            assert "predicted micro-batches phi who and share" in clusters
            assert "4 0.25 a 50 % with 1 sample, b 50 % with 2 samples" in clusters
            await publish(bus, TOPICS.round, measured_round(7, "ab"))
            await page.until("document.querySelector('#map-what').innerText.includes('overlap')")
            await bus.publish(TOPICS.status("c"), b"", retain=True)
            await bus.publish(TOPICS.profile("c"), b"", retain=True)
            await page.until(HAS_DEVICES.format(2))
            assert page.complaints == []


async def test_a_label_stays_at_its_tick_where_others_have_none(tmp_path: Path) -> None:
    """Between five cuts on an axis stand ticks at halves, which are no cuts."""
    async with by_server(tmp_path) as (_, url), opened(url) as page:
        ticks = "import('/static/charts.js').then(({ wholeOnly }) => wholeOnly(null, [0, 2.5, 5]))"
        assert await page.evaluate(ticks) == [0, None, 5]


async def test_without_a_history_the_curves_begin_with_what_is_heard(tmp_path: Path) -> None:
    async with by_server(tmp_path) as (bus, url), opened(url) as page:
        await publish_site(bus, (("a", "b"),), rounds=3)
        await bus.publish(TOPICS.history, b"", retain=True)
        await page.evaluate("document.querySelector('#curves details').open = true")
        rows = "document.querySelectorAll('#rounds-table tbody tr').length == {}"
        await page.until(rows.format(1))
        await publish(bus, TOPICS.round, measured_round(4, "ab"))
        await page.until(rows.format(2))
        assert "best 87.50" in await page.text("#now")
        assert page.complaints == []


async def test_the_map_is_what_the_phases_say_and_a_keyboard_reads_it(tmp_path: Path) -> None:
    async with by_server(tmp_path) as (bus, url):
        await publish_site(bus, (("a", "b"), ("c",)), rounds=1)
        async with opened(url) as page:
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


async def test_what_peers_wrote_is_text_whatever_it_looks_like(tmp_path: Path) -> None:
    async with by_server(tmp_path) as (bus, url):
        await publish_site(bus, (("a", "b"),), rounds=3)
        async with opened(url) as page:
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


async def test_devices_are_found_and_sorted_by_keyboard(tmp_path: Path) -> None:
    async with by_server(tmp_path) as (bus, url):
        await publish_site(bus, (("pi-2", "pi-10"), ("fast",)), rounds=1)
        names = "[...document.querySelectorAll('#devices-table tbody th')].map(c => c.innerText)"
        async with opened(url) as page:
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


@pytest.mark.parametrize(("scheme", "way"), [("light", by_server), ("dark", by_broker)])
async def test_three_hundred_devices_fit_a_phone(scheme: str, way: Way, tmp_path: Path) -> None:
    clusters = [[f"dev-{index + 5 * number:03}" for index in range(5)] for number in range(60)]
    async with way(tmp_path) as (bus, url):
        await publish_site(bus, clusters, rounds=20)
        async with opened(url) as page:
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
