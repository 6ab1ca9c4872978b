"""What goes on beside training, or alone, for tools that watch: each a client of the topics.

Each has a connection of its own. Training goes on whatever becomes of them.
"""

import argparse
import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from importlib.util import find_spec
from typing import Any

from edge_coordinator.job.settings import JobSettings
from runtime.bus.broker_url import TlsFiles
from runtime.errors import EdgeError, SettingsError, root_cause
from runtime.wire.topics import HomeAssistantTopics, Topics

Companion = Callable[[], Coroutine[None, None, None]]
Say = Callable[[str, str, Mapping[str, Any]], None]
"""Tells people in words, and programs by a name and fields."""

_METRICS_KEPT_S = 1.0
_METRICS_KEPT_BESIDE_TRAINING_S = 5.0
"""A scrape then costs the coordinator less; Prometheus asks every 15 s."""

log = logging.getLogger(__name__)


class Companions:
    """Those of one site; none unless they are asked for."""

    def __init__(self, broker_url: str, site: str, *, tls: TlsFiles, say: Say) -> None:
        self._broker_url = broker_url
        self._topics = Topics(site)
        self._tls = tls
        self._say = say
        self._all: dict[str, Companion] = {}
        self._metrics_kept_s = _METRICS_KEPT_S

    def take(self, flags: argparse.Namespace) -> None:
        """Take those that the flags ask for."""
        if flags.prometheus:
            self.serve_metrics(flags.prometheus)
        if flags.home_assistant:
            self.tell_home_assistant(flags.home_assistant)

    def serve_metrics(self, address: tuple[str, int]) -> None:
        """Have `/metrics` served; SettingsError where that cannot be."""
        if find_spec("prometheus_client") is None:
            raise SettingsError(
                "--prometheus needs prometheus_client, not installed here: "
                "pip install 'cpsl-edge[prometheus]'"
            )
        self._all["the metrics"] = lambda: self._metrics(*address)

    def tell_home_assistant(self, prefix: str) -> None:
        """Have Home Assistant told of the site's devices; `prefix` is of its discovery topics."""
        home = HomeAssistantTopics(prefix)
        self._all["Home Assistant"] = lambda: self._home_assistant(home)

    async def run(self) -> None:
        """Do nothing else, until cancelled; the first failure ends it."""
        async with asyncio.TaskGroup() as tasks:
            for name, companion in self._all.items():
                tasks.create_task(companion(), name=name)

    async def beside(self, training: Coroutine[None, None, None]) -> None:
        """Train, and have them run meanwhile."""
        self._metrics_kept_s = _METRICS_KEPT_BESIDE_TRAINING_S
        tasks = [
            asyncio.create_task(_warned(name, companion), name=name)
            for name, companion in self._all.items()
        ]
        try:
            await training
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _metrics(self, host: str, port: int) -> None:
        from edge_coordinator.monitor.client import follow
        from edge_coordinator.monitor.prometheus.endpoint import served_metrics
        from edge_coordinator.monitor.prometheus.scraped import ScrapedSite

        site = ScrapedSite(self._topics)
        with served_metrics(site, host=host, port=port, kept_s=self._metrics_kept_s) as url:
            self._say(f"metrics: {url}", "metrics", {"url": url})
            await follow(self._broker_url, site, tls=self._tls)

    async def _home_assistant(self, home: HomeAssistantTopics) -> None:
        from edge_coordinator.monitor.client import follow
        from edge_coordinator.monitor.home_assistant.announcer import Announcer

        announcer = Announcer(self._topics, home)
        told = f"telling Home Assistant of the devices on {home.every_device}"
        self._say(told, "home_assistant", {"topic": home.every_device})
        await follow(self._broker_url, announcer, tls=self._tls, on_quiet=announcer.tell)


def companions_of(
    flags: argparse.Namespace, url: str, settings: JobSettings, *, say: Say
) -> Companions:
    """Make ready what a coordinator is asked to have beside training."""
    broker = settings.broker
    tls = TlsFiles(broker.cafile, broker.certfile, broker.keyfile)
    companions = Companions(url, settings.site, tls=tls, say=say)
    companions.take(flags)
    return companions


async def _warned(name: str, companion: Companion) -> None:
    """Run it; what it fails with is said, and training goes on."""
    try:
        await companion()
    except (EdgeError, BaseExceptionGroup) as error:
        cause = root_cause(error)
        if not isinstance(cause, EdgeError):
            raise
        log.warning("training goes on without %s: %s", name, cause)
