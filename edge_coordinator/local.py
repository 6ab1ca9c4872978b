"""A whole run on one machine: broker, agents and coordinator, over real MQTT."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from edge_coordinator.job import Job
from edge_coordinator.local_agents import device_names, host_groups, local_agents, watch
from edge_coordinator.local_broker import local_broker
from edge_coordinator.progress import Observer
from edge_coordinator.record import RunDirectory
from edge_coordinator.serve import serve_job
from edge_coordinator.settings import JobSettings
from edge_coordinator.show_data import data_table
from edge_coordinator.training.edge_model import EdgeModel
from profiles.emulation import EmulationError, load_emulation
from runtime.datasets.partition import class_counts, partition
from runtime.datasets.samples import DataSet
from runtime.errors import SettingsError


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


def emulated_classes(settings: JobSettings, *, base_dir: Path) -> str:
    """Name what each device emulates; SettingsError if the scenario cannot be used."""
    if settings.devices.scenario is None:
        return ""
    try:
        scenario = load_emulation(settings.devices.scenario, base_dir=base_dir)
    except EmulationError as error:
        raise SettingsError(str(error)) from error
    names = device_names(settings.devices.count)
    classes = (f"{name} {scenario.class_of(i).name}" for i, name in enumerate(names))
    return f"emulated: {', '.join(classes)}"


async def run_local(
    job: Job,
    model: EdgeModel,
    *,
    console: Console,
    directory: RunDirectory,
    observers: Sequence[Observer],
    base_dir: Path,
) -> None:
    """Start a broker and the agents, train, and end all that was started."""
    settings = job.settings
    emulated = emulated_classes(settings, base_dir=base_dir)
    async with local_broker(settings.broker.local, settings.broker.port) as broker:
        console.print(f"broker: {broker.kind} at {broker.url}")
        count = len(host_groups(settings))
        console.print(f"agents: {settings.devices.count} devices in {count} processes")
        if emulated:
            console.print(emulated)
        async with (
            local_agents(
                settings, url=broker.url, base_dir=base_dir, log_dir=directory.path
            ) as agents,
            asyncio.TaskGroup() as tasks,
        ):
            watching = [
                tasks.create_task(watch(agents), name="watch agents"),
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
