"""A broker that answers as a test has it, to a bus that thinks it real."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from runtime.bus.bus import Bus, Connected, Delivery, Disconnected

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def until(bus: Bus, kind: type[Connected] | type[Disconnected] | type[Delivery]) -> object:
    """Wait for an event of that kind."""
    async for event in bus.events():
        if isinstance(event, kind):
            return event
    raise AssertionError("the bus was closed")


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return the type and the body of an MQTT packet."""
    kind = (await reader.readexactly(1))[0] >> 4
    length, shift = 0, 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length, shift = length | (byte & 127) << shift, shift + 7
        if byte < 128:
            return kind, await reader.readexactly(length)


@asynccontextmanager
async def fake_broker(handle: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve connections by `handle`; yields the URL."""
    sessions: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (session := asyncio.current_task()) is not None:
            sessions.append(session)
        try:
            await handle(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    yield f"mqtts://localhost:{port}" if tls else f"mqtt://127.0.0.1:{port}"
    server.close()
    for session in sessions:
        session.cancel()
    await asyncio.gather(*sessions, return_exceptions=True)


async def hang_up(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Close a connection unanswered."""
