"""The coordinator of a whole run on one machine, over real MQTT."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edge_coordinator.job.job import Job
from edge_coordinator.local.agents import watch
from edge_coordinator.local.site import LocalSite
from edge_coordinator.monitor.record import history_so_far
from edge_coordinator.run.directory import RunDirectory
from edge_coordinator.run.events import Observer
from edge_coordinator.serve.training import serve_job
from edge_coordinator.training.edge_model import EdgeModel

Say = Callable[[str, str, Mapping[str, Any]], None]
"""Tells people in words, and programs by a name and fields."""


async def run_local(
    site: LocalSite,
    job: Job,
    model: EdgeModel,
    *,
    say: Say,
    directory: RunDirectory,
    observers: Sequence[Observer],
) -> None:
    """Train with a broker and agents that have been started, and end them."""
    broker = site.broker
    _tell_of(site, job.settings.devices.count, say)
    try:
        if site.page is not None:
            page = await site.page.where()
            _, is_served, url = page.partition("page: ")
            say(page, "page" if is_served else "", {"url": url})
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


def _tell_of(site: LocalSite, num_devices: int, say: Say) -> None:
    """Say what was started."""
    broker = site.broker
    where = {"kind": broker.kind, "url": broker.url}
    say(f"broker: {broker.kind} at {broker.url}", "broker", where)
    num_processes = len(site.agents)
    agents = {"num_devices": num_devices, "num_processes": num_processes}
    say(f"agents: {num_devices} devices in {num_processes} processes", "agents", agents)
    if site.emulated:
        say(site.emulated, "", {})
