"""Where the page is served, and for how long."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from edge_coordinator.monitor.web.app import LOOPBACK
from runtime.errors import SettingsError

USUAL_PORT = 8420
_MOST_CONNECTIONS = 200
_GOODBYE_S = 1

Say = Callable[[str], None]


@dataclass(frozen=True)
class Address:
    """Where to listen."""

    host: str = LOOPBACK[0]
    port: int | None = None
    """The usual one, or a free one if that is taken, if None; a free one, if 0."""

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK

    def listen(self) -> socket.socket:
        """Open the socket; SettingsError if that cannot be."""
        if self.port is not None:
            return self._listen(self.port)
        try:
            return self._listen(USUAL_PORT)
        except SettingsError:
            return self._listen(0)

    def _listen(self, port: int) -> socket.socket:
        try:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            return socket.create_server((self.host, port), family=family, backlog=128)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SettingsError(
                f"the page cannot be served at {self.host} port {port}: {reason}"
            ) from error


@asynccontextmanager
async def served(app: ASGIApp, listening: socket.socket) -> AsyncIterator[str]:
    """Serve for the length of the block; its value is the page's address."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_GOODBYE_S,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="serve the page")
    try:
        yield url_of(listening)
    finally:
        server.should_exit = True
        await serving


def url_of(listening: socket.socket) -> str:
    """Give the address that a browser on this machine takes."""
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)  # noqa: S104
    return f"http://[{shown}]:{port}/" if ":" in shown else f"http://{shown}:{port}/"


def say_where(url: str, address: Address, say: Say) -> None:
    """Tell where the page is, and who else can see it."""
    say(f"page: {url}")
    if not address.is_local:
        say(f"whoever reaches {address.host} sees this page; it has no password")


class _Server(uvicorn.Server):
    """Leaves signals to the program."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
