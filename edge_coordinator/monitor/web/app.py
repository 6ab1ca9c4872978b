"""The page's server: its files, its events, the rounds of recorded runs; and nothing else.

What is on a site was written by peers: the page puts it in as text, and the headers forbid the
browser to run, load or send anything that is not the page's own. A server on this machine answers
to this machine's names only, so that no other site's page can reach it by a name of its own.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_coordinator.monitor.web.hub import Hub
from edge_coordinator.monitor.web.static_files import static_files
from runtime.errors import SettingsError

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Records(Protocol):
    """Recorded runs, by number."""

    def summaries(self) -> list[dict[str, Any]]:
        """What there is to show of each; SettingsError if it cannot be read."""
        ...

    def round(self, run: int, number: int) -> dict[str, Any] | None:
        """Plan and report of one round; None if it is not there."""
        ...


def site_app(hub: Hub, *, bound_to: str) -> ASGIApp:
    """Serve the page of a site."""

    async def events(_: Request) -> Response:
        return StreamingResponse(hub.events(), media_type="text/event-stream")

    return _app({"mode": "site"}, [Route("/events", events)], bound_to)


def records_app(records: Records, *, bound_to: str) -> ASGIApp:
    """Serve the page of recorded runs."""

    def runs(_: Request) -> Response:
        return _answered(records.summaries)

    def one_round(request: Request) -> Response:
        run, number = request.path_params["run"], request.path_params["number"]
        return _answered(lambda: records.round(run, number))

    routes = [Route("/runs", runs), Route("/runs/{run:int}/rounds/{number:int}", one_round)]
    return _app({"mode": "runs"}, routes, bound_to)


def broker_app(source: Mapping[str, Any], *, may_connect_to: str, bound_to: str) -> ASGIApp:
    """Serve the page of a site that asks the broker itself, of which `source` tells."""
    return _app(source, [], bound_to, may_connect_to=may_connect_to)


def _answered(read: Callable[[], Any]) -> Response:
    try:
        found = read()
    except SettingsError as error:
        return JSONResponse({"error": str(error)}, 500)
    return JSONResponse(found) if found is not None else PlainTextResponse("no such round", 404)


def _app(
    source: Mapping[str, Any], routes: list[Route], bound_to: str, *, may_connect_to: str = ""
) -> ASGIApp:
    static = static_files()

    def file(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in static:  # Names of what ships, not paths: there is nowhere to climb to.
            return PlainTextResponse("not found", 404)
        return Response(static[name], media_type=_TYPES[name.rpartition(".")[2]])

    def where_from(_: Request) -> Response:
        return JSONResponse(source)

    app = Starlette(
        routes=[
            Route("/", file),
            Route("/static/{name:path}", file),
            Route("/source", where_from),
            *routes,
        ]
    )
    return _Guard(app, bound_to, may_connect_to)


class _Guard:
    """Adds the headers to every answer, and refuses hosts that are not this one."""

    def __init__(self, app: ASGIApp, bound_to: str, may_connect_to: str) -> None:
        self._app = app
        self._is_local = bound_to in LOOPBACK
        policy = _POLICY.replace("connect-src 'self'", f"connect-src 'self' {may_connect_to}")
        self._headers = _HEADERS | ({"Content-Security-Policy": policy} if may_connect_to else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        app = self._app
        if scope["type"] == "http" and self._is_local and _host(scope) not in LOOPBACK:
            app = PlainTextResponse("this page is served to this machine only", 421)
        await app(scope, receive, send_with_headers)


def _host(scope: Scope) -> str:
    """Give the name that a browser asked for, without port and brackets."""
    named: str = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    host = named.rpartition(":")[0] if named.rpartition(":")[2].isdecimal() else named
    return host.strip("[]")
