"""The page of a site, as it is now."""

import asyncio

from edge_coordinator.monitor.client import monitor
from edge_coordinator.monitor.web.app import broker_app, site_app
from edge_coordinator.monitor.web.direct import DirectSource
from edge_coordinator.monitor.web.hub import Hub
from edge_coordinator.monitor.web.parts import SiteParts
from edge_coordinator.monitor.web.serving import Address, Say, say_where, served
from runtime.bus.broker_url import TlsFiles, parse_broker_url


async def serve_site(
    broker_url: str, site: str, *, tls: TlsFiles, address: Address, say: Say
) -> None:
    """Serve the page of a site until cancelled."""
    hub = Hub()
    parts = SiteParts(hub, broker=str(parse_broker_url(broker_url)))
    listening = address.listen()
    async with served(site_app(hub, bound_to=address.host), listening) as url:
        say_where(url, address, say)
        try:
            await monitor(broker_url, site, tls=tls, show=parts.show, from_the_start=True)
        finally:
            hub.close()


async def serve_direct(source: DirectSource, *, address: Address, say: Say) -> None:
    """Serve the page of a site that asks the broker itself, until cancelled."""
    app = broker_app(source.as_json(), may_connect_to=source.may_connect_to, bound_to=address.host)
    async with served(app, address.listen()) as url:
        say_where(url, address, say)
        await asyncio.get_running_loop().create_future()
