"""The coordinator of a whole run on one machine, over real MQTT."""

import asyncio
from collections.abc import Sequence

from rich.console import Console

from edge_coordinator.job.job import Job
from edge_coordinator.local.agents import watch
from edge_coordinator.local.site import LocalSite
from edge_coordinator.monitor.record import history_so_far
from edge_coordinator.run.directory import RunDirectory
from edge_coordinator.run.events import Observer
from edge_coordinator.serve import serve_job
from edge_coordinator.training.edge_model import EdgeModel


async def run_local(
    site: LocalSite,
    job: Job,
    model: EdgeModel,
    *,
    console: Console,
    directory: RunDirectory,
    observers: Sequence[Observer],
) -> None:
    """Train with a broker and agents that have been started, and end them."""
    settings, broker = job.settings, site.broker
    console.print(f"broker: {broker.kind} at {broker.url}")
    console.print(f"agents: {settings.devices.count} devices in {len(site.agents)} processes")
    if site.emulated:
        console.print(site.emulated)
    try:
        if site.page is not None:
            console.print(await site.page.where(), soft_wrap=True, highlight=False)
        async with asyncio.TaskGroup() as tasks:
            watching = [
                tasks.create_task(watch(site.agents), name="watch agents"),
                tasks.create_task(broker.watch(), name="watch broker"),
            ]
            await serve_job(
                job,
                model,
                url=broker.url,
                observers=observers,
                progress=directory,
                on_waiting=None,
                history=history_so_far(directory.path),
            )
            for task in watching:
                task.cancel()
    finally:
        await site.end()
