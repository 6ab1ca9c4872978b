"""Plans of LeNet with every choice left to them: what planning takes, and what the choices gain.

Codecs of an error up to 1 %, whole mini-batches or 2, 4 or 8 micro-batches, the cut, cuts by
device, and how samples are shared out.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from benchmarks.planning.cuts_by_device import fleet, lenet
from edge_coordinator.job.job import AUTOMATIC
from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.plan import Plan
from edge_coordinator.planning.planner import plan_round
from edge_coordinator.planning.wire import WireTable
from profiles.cuts import CutTable
from profiles.device import ComputeState, DeviceState
from profiles.link import Medium
from runtime.wire.codecs.names import TurnCodecs
from runtime.wire.codecs.offered import DENSE
from tests.fleets import random_devices, workload

FLEETS = 8
SPREADS = (0.5, 1.5, 2.5)
"""Decades between the slowest and the fastest, in compute and in rates."""
SERVER_FLOP_PER_S, BATCH_SIZE, MAX_ERROR, CLUSTER_SIZE = 1e10, 16, 0.01, 5


def everything(table: CutTable, medium: Medium) -> Workload:
    """Leave every choice to the plan."""
    speed = SERVER_FLOP_PER_S
    server = ComputeState.of_server(table, forward_flop_per_s=speed, backward_flop_per_s=speed)
    names = [each.name for each in DENSE if each.relative_error <= MAX_ERROR]
    codecs = [TurnCodecs(**dict.fromkeys(TurnCodecs.model_fields, name)) for name in names]
    return Workload(
        *(table, BATCH_SIZE, 1, 8.0, 256_000, server, medium),
        loss_on_device=False,
        wires=tuple(WireTable.of(table, each, batch_size=BATCH_SIZE) for each in codecs),
        micro_batches=AUTOMATIC,
        batch_sizes="auto",
    )


def plan(devices: list[DeviceState], work: Workload, *, by_device: bool = True) -> Plan:
    """Plan a round."""
    grouping = Grouping("cpsl", cluster_size=CLUSTER_SIZE, cuts_by_device=by_device)
    generator = np.random.default_rng(0)
    return plan_round(devices, work, grouping=grouping, cut=None, generator=generator)


def rows(medium: Medium, *, num_devices: int) -> Iterator[tuple[object, ...]]:
    """Give a row for each spread: how many times longer a round is without one of the choices.

    Without codecs, micro-batches, shared-out samples and cuts by device, each alone; without all.
    """
    table = lenet()
    for decades in SPREADS:
        times = []
        for seed in range(FLEETS):
            devices = fleet(table, seed, num_devices, decades=decades)
            work = everything(table, medium)
            raw = replace(work, wires=())
            whole = replace(work, micro_batches=(1,))
            equal = replace(work, batch_sizes="equal")
            none = replace(raw, micro_batches=(1,), batch_sizes="equal")
            took_s = [
                plan(devices, each, by_device=by_device).predicted_s or 0.0
                for each, by_device in (
                    *((work, True), (raw, True), (whole, True), (equal, True)),
                    *((work, False), (none, False)),
                )
            ]
            times.append(np.array(took_s[1:]) / took_s[0])
        yield decades, num_devices, *np.median(times, axis=0).tolist()


def plans_by_speed(seed: int, num_devices: int, medium: Medium) -> Iterator[Plan]:
    """Plan rounds whose samples are shared out, of fleets that wait for computing or for links."""
    grouping = Grouping("cpsl", cluster_size=CLUSTER_SIZE)
    work = replace(workload(medium), batch_sizes="by_speed")
    for instance in range(FLEETS):
        generator = np.random.default_rng((seed, num_devices, instance))
        flop_per_s, up_bps = [(1e8, 1e7), (1e9, 3e6)][instance % 2]
        devices = random_devices(generator, num_devices, flop_per_s=flop_per_s, up_bps=up_bps)
        yield plan_round(devices, work, grouping=grouping, cut=2, generator=generator)


def plans_of_all(num_devices: int, medium: Medium) -> Iterator[Plan]:
    """Plan rounds of LeNet with every choice left to the plan, of fleets that differ ever more."""
    table = lenet()
    work = everything(table, medium)
    for seed in range(FLEETS):
        decades = SPREADS[seed % len(SPREADS)]
        yield plan(fleet(table, seed, num_devices, decades=decades), work)


def above_bound_percent(plans: Iterable[Plan]) -> list[float]:
    """Say how far each plan is above its bound."""
    return [
        100 * (each.predicted_s / each.lower_bound_s - 1)
        for each in plans
        if each.predicted_s and each.lower_bound_s
    ]
