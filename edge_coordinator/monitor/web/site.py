"""The page of a site, as it is now."""

from edge_coordinator.monitor.client import monitor
from edge_coordinator.monitor.web.app import site_app
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
