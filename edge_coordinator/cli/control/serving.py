"""The command that keeps a coordinator on its site, and those that give it jobs."""

import argparse
import asyncio
import signal
from pathlib import Path

from rich.table import Table

from edge_coordinator.cli.companions import companions_of
from edge_coordinator.cli.control.job_queue import JobQueue
from edge_coordinator.cli.control.job_server import JobServer, Served
from edge_coordinator.cli.output import Output
from edge_coordinator.formatting import figure_in_words
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.monitor.asking_queue import QueueView
from runtime.bus.broker_url import TlsFiles
from runtime.bus.bus import Will
from runtime.bus.mqtt_bus import MqttBus
from runtime.errors import SettingsError
from runtime.event_loop import call_on_signals
from runtime.plugins import AllowedCode
from runtime.service.health import health_told
from runtime.wire.ownership import new_session


def serve_queue(
    flags: argparse.Namespace, console: Output, settings: JobSettings, *, url: str
) -> None:
    """Train the jobs of a queue, one after another, until told to end."""
    if flags.resume is not None:
        raise SettingsError("--serve goes on with its queue by itself; leave --resume out")
    served = Served(
        settings,
        AllowedCode(tuple(flags.allow_code)),
        [
            *(word for name in flags.track for word in ("--track", name)),
            *(("--spans", flags.spans) if flags.spans else ()),
        ],
        Path.cwd(),
    )
    server = JobServer(served, JobQueue(settings.output / "queue"), say=console.say)
    companions = companions_of(flags, url, settings, say=console.say)

    async def serve() -> None:
        task = asyncio.current_task()
        assert task is not None
        call_on_signals([signal.SIGTERM], task.cancel)
        await companions.beside(_connected(flags, console, settings, server, url))

    try:
        asyncio.run(serve())
    except* KeyboardInterrupt:
        raise KeyboardInterrupt from None


async def _connected(
    flags: argparse.Namespace,
    console: Output,
    settings: JobSettings,
    server: JobServer,
    url: str,
) -> None:
    broker = settings.broker
    topic, message = server.will()
    connection: list[MqttBus] = []

    def health() -> str:
        is_there = any(bus.is_connected for bus in connection)
        return "connected" if is_there else "waiting for the broker"

    async with health_told(flags.health_file, health):
        bus = await MqttBus.connect(
            url,
            client_id=f"queue-{new_session()}",
            will=Will(topic, message),
            wait=flags.wait,
            on_waiting=console.say,
            tls=TlsFiles(broker.cafile, broker.certfile, broker.keyfile),
        )
        connection.append(bus)
        async with bus:
            await server.run(bus)


def queue_table(view: QueueView) -> Table:
    """Show a queue as people read it."""
    table = Table(box=None, pad_edge=False)
    for name in ("job", "name", "state", "test", "by"):
        table.add_column(name, justify="right" if name == "job" else "left", no_wrap=True)
    table.add_column("run, and how it ended", overflow="fold")
    for job in view.jobs:
        known = job.metric is not None and job.test_metric is not None
        test = f"{job.metric} {figure_in_words(job.metric, job.test_metric)}" if known else ""  # type: ignore[arg-type]
        more = ", ".join(filter(None, (Path(job.directory).name, job.words)))
        table.add_row(str(job.number), job.name, job.state, test, job.by, more)
    return table
