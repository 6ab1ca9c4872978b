"""The way to a site for commands that ask or change something there."""

import argparse
import asyncio
import getpass
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

from edge_coordinator.cli.fleet.commands import watch_fleet
from runtime.bus.broker_url import TlsFiles
from runtime.bus.bus import Bus
from runtime.bus.mqtt_bus import MqttBus
from runtime.wire.fields import as_words
from runtime.wire.ownership import new_session
from runtime.wire.topics import Topics

Answer = TypeVar("Answer")


def own_name() -> str:
    """Who asks: what a run that was stopped says of it; a user need not have a name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"
    return as_words(f"{user}@{socket.gethostname()}")


def on_site(flags: argparse.Namespace, do: Callable[[Bus, Topics], Awaitable[Answer]]) -> Answer:
    """Connect to the site of these flags, and do it there."""
    if flags.fleet is not None:
        watch_fleet(flags, user="coordinator")

    async def connected() -> Answer:
        tls = TlsFiles(flags.cafile, flags.certfile, flags.keyfile)
        client_id = f"control-{new_session()}"
        async with await MqttBus.connect(
            flags.broker, client_id=client_id, wait=False, tls=tls
        ) as bus:
            return await do(bus, Topics(flags.site))

    return asyncio.run(connected())
