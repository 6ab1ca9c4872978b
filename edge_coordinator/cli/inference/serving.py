"""`cpsl infer --serve`: the server half for devices of a site, until told to end."""

import argparse
import asyncio
import logging
import signal
from dataclasses import dataclass

from edge_coordinator.cli.output import Output
from edge_coordinator.fleet.exposure import exposure_of
from edge_coordinator.serve.inference import InferenceServer
from edge_coordinator.serve.inference_site import (
    InferenceSite,
    connect_server,
    new_inference_status,
)
from runtime.bus.broker_url import TlsFiles, parse_broker_url
from runtime.event_loop import call_on_signals
from runtime.inference.half import Half, HalfInfo, Shape
from runtime.wire.topics import Topics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedHalf:
    """A server half, and what devices have to know of it."""

    info: HalfInfo
    half: Half
    smashed_shape: Shape
    output_shape: Shape


def serve_half(flags: argparse.Namespace, console: Output, served: ServedHalf) -> None:
    """Serve it on the site that the flags name."""
    if flags.fleet is not None:
        from edge_coordinator.cli.fleet.commands import watch_fleet  # noqa: PLC0415, of weight

        watch_fleet(flags, user="coordinator")
    if warning := exposure_of(parse_broker_url(flags.broker)):
        log.warning("%s", warning)

    async def serve() -> None:
        task = asyncio.current_task()
        assert task is not None
        call_on_signals([signal.SIGTERM], task.cancel)
        await _serve(flags, console, served)

    try:
        asyncio.run(serve())
    except* KeyboardInterrupt:
        raise KeyboardInterrupt from None


async def _serve(flags: argparse.Namespace, console: Output, served: ServedHalf) -> None:
    topics = Topics(flags.site)
    status = new_inference_status(
        served.info, smashed_shape=served.smashed_shape, output_shape=served.output_shape
    )
    tls = TlsFiles(flags.cafile, flags.certfile, flags.keyfile)
    url = str(parse_broker_url(flags.broker))
    bus = await connect_server(
        flags.broker, topics, status, wait=flags.wait, on_waiting=console.say, tls=tls
    )
    async with bus:
        events, site = bus.events(), InferenceSite(bus, topics, status)
        await site.claim(events)
        server = InferenceServer(bus, site, served.half, say=console.say)
        console.say(
            f"serving the server half of {status.network}, cut after {status.cut}, on site "
            f"{flags.site} of {url}; Ctrl-C ends it",
            "serving_inference",
            {"site": flags.site, "url": url, "network": status.network, "cut": status.cut},
        )
        try:
            await server.serve(events)
        finally:
            await site.leave()
            counts = {"num_batches": server.num_batches, "num_samples": server.num_samples}
            console.say(
                f"computed {server.num_batches} batches of {server.num_samples} samples",
                "served_inference",
                counts,
            )
