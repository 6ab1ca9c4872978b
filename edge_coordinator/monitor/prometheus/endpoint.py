"""`/metrics`, served by a thread of this process: of a site, and of the process itself."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    make_wsgi_app,
    start_http_server,
)
from prometheus_client.registry import Collector

from edge_coordinator.monitor.prometheus.scraped import ScrapedSite
from runtime.errors import SettingsError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

Answer = tuple[tuple[Any, ...], list[bytes]]
"""What a response starts with, and what it says."""
_QUESTION = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "HTTP_ACCEPT", "HTTP_ACCEPT_ENCODING")
_MOST_ANSWERS = 8
"""Scrapers of one kind ask alike; for who asks in ever new ways nothing is kept."""


class KeptAnswers:
    """Gives all who ask the same within some seconds one answer: many cost what one costs."""

    def __init__(self, app: "WSGIApplication", *, kept_s: float) -> None:
        self._app = app
        self._kept_s = kept_s
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, ...], Answer] = {}
        self._since_s = -kept_s

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer a request; whoever asks while an answer is made waits for it."""
        question = tuple(environ.get(name, "") for name in _QUESTION)
        with self._lock:
            now_s = time.monotonic()
            if now_s - self._since_s >= self._kept_s:
                self._answers.clear()
                self._since_s = now_s
            head, body = self._answers.get(question) or self._made(environ)
            if len(self._answers) < _MOST_ANSWERS:
                self._answers[question] = head, body
        start_response(*head)
        return body

    def _made(self, environ: "WSGIEnvironment") -> Answer:
        head: list[tuple[Any, ...]] = []

        def start(*told: Any) -> Any:  # noqa: ANN401 - as WSGI has it
            head.append(told)

        body = list(self._app(environ, start))
        return head[0], body


@contextmanager
def served_metrics(site: ScrapedSite, *, host: str, port: int, kept_s: float) -> Iterator[str]:
    """Serve for the length of the block; its value is the address to scrape.

    What a scrape is told is at most `kept_s` old.
    """
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
    server.set_app(KeptAnswers(make_wsgi_app(registry), kept_s=kept_s))
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
