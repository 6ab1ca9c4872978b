"""Central learning as a yardstick: all samples in one place, in steps of one mini-batch.

The engine's own `cl` makes one step of all devices' mini-batches together, 480 samples for thirty
devices, and so few steps that it learns little: a handicap of the schedule, not of having the data
in one place. Here it takes as many samples in a round as the devices would give, in steps of the
size that vanilla split learning has, and all samples are there from the beginning. Time passes as
for the engine's own: every device uploads its samples on its own part of the link, and the server
works through as many of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_coordinator.experiments.results import RoundRow
from edge_coordinator.job.prepare import prepare_job
from edge_coordinator.job.settings import JobSettings, device_names
from edge_coordinator.simulation.prepare import PreparedSimulation
from edge_coordinator.simulation.simulation import SimulatedRound, Simulation
from runtime.datasets.partition import partition
from runtime.datasets.samples import DataSet, Indices


def pooled(spread: PreparedSimulation, data: DataSet, *, base_dir: Path) -> PreparedSimulation:
    """Put the samples of all devices that take part in one place."""
    before = spread.job.settings
    together = data.train.take(_held(before, data))
    steps = spread.simulation.num_devices * spread.job.local_epochs
    job, model = prepare_job(_in_one_place(before, steps), run=0, base_dir=base_dir, data=data)
    (name,) = device_names(1)
    simulation = Simulation(
        job, model, {name: together}, spread.simulation.scenario.without_growth()
    )
    return PreparedSimulation(job, model, simulation)


def clocked(rounds: Sequence[SimulatedRound], spread: Simulation) -> tuple[RoundRow, ...]:
    """Give the rounds of pooled data the seconds that the devices' own uploads would take."""
    rows, elapsed_s = [], 0.0
    for done in rounds:
        round_s, costs = spread.price(done.report.round, elapsed_s=elapsed_s)
        elapsed_s += round_s
        row = replace(
            RoundRow.of(replace(done, costs=costs)),
            elapsed_s=elapsed_s,
            round_s=round_s,
            num_devices=spread.num_devices,
        )
        rows.append(row)
    return tuple(rows)


def _in_one_place(settings: JobSettings, steps: int) -> JobSettings:
    devices = settings.devices.model_copy(update={"count": 1, "exclude": ()})
    training = settings.training.model_copy(update={"method": "cl", "local_epochs": steps})
    return settings.model_copy(update={"devices": devices, "training": training})


def _held(settings: JobSettings, data: DataSet) -> Indices:
    """Which training samples the devices that take part hold together."""
    count, labels = settings.devices.count, data.train.y
    parts = partition(labels, settings.data.partition, num_devices=count, seed=settings.seed)
    named = zip(device_names(count), parts, strict=True)
    held = [part for name, part in named if name not in settings.devices.exclude]
    return np.sort(np.concatenate(held))
