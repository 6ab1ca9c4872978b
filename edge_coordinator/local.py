"""The coordinator of a whole run on one machine, over real MQTT."""

import asyncio
from collections.abc import Sequence

import numpy as np
from rich.console import Console

from edge_coordinator.job import Job
from edge_coordinator.local_agents import device_names, watch
from edge_coordinator.local_site import LocalSite
from edge_coordinator.progress import Observer
from edge_coordinator.record import RunDirectory
from edge_coordinator.serve import serve_job
from edge_coordinator.settings import JobSettings
from edge_coordinator.show_data import data_table
from edge_coordinator.training.edge_model import EdgeModel
from runtime.datasets.partition import class_counts, partition
from runtime.datasets.samples import DataSet


def show_shards(console: Console, settings: JobSettings, data: DataSet) -> None:
    """Print how many samples of which class each device will have."""
    labels, count = data.train.y, settings.devices.count
    parts = partition(labels, settings.data.partition, num_devices=count, seed=settings.seed)
    if data.num_classes is None or not np.issubdtype(labels.dtype, np.integer):
        sizes = ", ".join(str(len(part)) for part in parts)
        console.print(f"samples of {count} devices: {sizes}")
        return
    counts = class_counts(labels, parts, num_classes=data.num_classes)
    console.print(data_table(counts, devices=device_names(count), width=console.width))


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
            )
            for task in watching:
                task.cancel()
    finally:
        await site.end()
