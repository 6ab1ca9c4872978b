"""`/metrics`, served by a thread of this process: of a site, and of the process itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.registry import Collector

from edge_coordinator.monitor.prometheus.scraped import ScrapedSite
from runtime.errors import SettingsError


@contextmanager
def served_metrics(site: ScrapedSite, *, host: str, port: int) -> Iterator[str]:
    """Serve for the length of the block; its value is the address to scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(cast("Collector", site))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise SettingsError(
            f"the metrics cannot be served at {host} port {port}: {error.strerror or error}"
        ) from error
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
