"""A site that is watched in a browser: what is published there, and who tells the page of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from edge_coordinator.monitor.client import watch
from edge_coordinator.monitor.web.app import broker_app, site_app
from edge_coordinator.monitor.web.direct import DirectSource, write_page
from edge_coordinator.monitor.web.hub import Hub
from edge_coordinator.monitor.web.parts import SiteParts
from edge_coordinator.monitor.web.serving import Address, served
from runtime.bus.bus import Bus
from runtime.bus.memory_bus import MemoryBroker
from runtime.bus.mqtt_bus import MqttBus
from runtime.wire.fields import Message
from runtime.wire.history import History
from runtime.wire.published import CoordinatorStatus, DeviceStatus
from runtime.wire.run_control import SettingsReport
from tests.outside.browser import Page, browser_page
from tests.outside.mosquitto import mosquitto
from tests.sites import NOW_S, TOPICS, make_profile, measured_round, planned_round

HOSTILE = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
Way = Callable[[Path], AbstractAsyncContextManager[tuple[Bus, str]]]
"""Gives a bus to publish on, and the URL of a page of what is published."""


@asynccontextmanager
async def by_server(_: Path) -> AsyncIterator[tuple[Bus, str]]:
    """The page's server watches, and tells the page."""
    broker, hub = MemoryBroker(), Hub()
    parts = SiteParts(hub, broker="mqtt://edge:1883")
    async with broker.connect("agents") as bus, broker.connect("watcher") as watcher:
        watching = asyncio.create_task(watch(watcher, TOPICS, show=parts.show, from_the_start=True))
        try:
            app = site_app(hub, bound_to="127.0.0.1")
            async with served(app, Address(port=0).listen()) as url:
                yield bus, url
                hub.close()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


@asynccontextmanager
async def by_broker(folder: Path) -> AsyncIterator[tuple[Bus, str]]:
    """The page asks Mosquitto itself."""
    async with (
        mosquitto(folder) as at,
        await MqttBus.connect(f"mqtt://{at.plain}", client_id="agents", wait=True) as bus,
        page_of_broker(at.web) as url,
    ):
        yield bus, url


@asynccontextmanager
async def by_file(folder: Path) -> AsyncIterator[tuple[Bus, str]]:
    """The same, and Mosquitto serves the page: one file, in which no broker is named."""
    (folder / "page").mkdir()
    write_page(DirectSource.of(None, TOPICS.site), folder / "page")
    async with (
        mosquitto(folder, of_web=f"http_dir {folder / 'page'}") as at,
        await MqttBus.connect(f"mqtt://{at.plain}", client_id="agents", wait=True) as bus,
    ):
        yield bus, f"http://{at.web}/"


@asynccontextmanager
async def page_of_broker(address: str, *, scheme: str = "ws") -> AsyncIterator[str]:
    """Serve the page that asks the broker at this address."""
    source = DirectSource.of(f"{scheme}://{address}", TOPICS.site)
    app = broker_app(source.as_json(), may_connect_to=source.may_connect_to, bound_to="127.0.0.1")
    async with served(app, Address(port=0).listen()) as url:
        yield url


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Page]:
    """Open a page in a browser."""
    async with browser_page() as page:
        await page.window(1200, 900)
        await page.open(url)
        yield page


async def publish(bus: Bus, topic: str, message: Message) -> None:
    """Leave a message for all who come."""
    await bus.publish(topic, message.encode(), retain=True)


async def publish_site(bus: Bus, clusters: Sequence[Sequence[str]], *, rounds: int) -> History:
    """Leave what a coordinator in the midst of a run leaves."""
    history = History()
    devices = [device for cluster in clusters for device in cluster]
    for number in range(1, rounds + 1):
        history.plan(planned_round(number, clusters), 50)
        lost = {devices[0]: f"silent {HOSTILE}"} if number == 2 else {}
        history.add(measured_round(number, devices, lost=lost))
    for device in devices:
        status = DeviceStatus(state="online", session="s", since_unix_s=NOW_S, engine="torch")
        await publish(bus, TOPICS.status(device), status)
        settings = SettingsReport(applied={"threads": "1"}, refused={"min_cut": f"no {HOSTILE}"})
        profile = make_profile(device, 1.0).model_copy(update={"settings": settings})
        await publish(bus, TOPICS.profile(device), profile)
    works = CoordinatorStatus(
        state="online", session="c", since_unix_s=NOW_S, run=7, phase=f"round {rounds} of 50"
    )
    await publish(bus, TOPICS.coordinator_status, works)
    left_out = {"zero": HOSTILE}
    await publish(
        bus,
        TOPICS.plan,
        planned_round(rounds, clusters, reason=f"because {HOSTILE}", left_out=left_out),
    )
    await publish(bus, TOPICS.round, measured_round(rounds, devices))
    await publish(bus, TOPICS.history, history.report(7))
    return history
