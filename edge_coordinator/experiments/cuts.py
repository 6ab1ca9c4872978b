"""What cutting the network after each of its layers would cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_coordinator.experiments.latencies import Setting
from edge_coordinator.planning.clusters.clustering import CUT_SCHEDULE
from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.cuts.cut_prices import priced_cuts
from edge_coordinator.planning.fleet import Fleet, Workload, device_memory_bytes
from edge_coordinator.planning.plan import CutPrice, InfeasiblePlanError
from profiles.cuts import CutTable, device_round_bytes

NUM_STATES = 8
"""Draws of the devices' states that a cut's seconds are the mean of."""


@dataclass(frozen=True)
class CutCost:
    """One cut, with the clusters and shares that would be planned at it."""

    cut: int
    name: str
    round_s: float | None
    """Mean seconds of a round; None if the cut is infeasible."""
    device_bytes: float
    """What a device exchanges in a round, by the cost table."""
    device_flop: float
    """What it computes in a round."""
    device_memory_bytes: float
    infeasible: str
    """Why devices cannot train at this cut; empty if they can."""


def cut_costs(setting: Setting) -> list[CutCost]:
    """Price every cut, from all on the server to all on the device.

    The last is training the whole network on the device, the loss included.
    """
    workload, table = setting.workload, setting.workload.cuts
    by_itself = replace(workload, loss_on_device=True)
    prices = [
        *_prices(setting, workload, range(table.num_layers)),
        *_prices(setting, by_itself, [table.num_layers]),
    ]
    samples = workload.batch_size * workload.local_epochs
    num_bytes = device_round_bytes(
        table, batch_size=workload.batch_size, local_epochs=workload.local_epochs
    )
    flop = samples * (table.device_forward_flop + table.device_backward_flop)
    memory_bytes = device_memory_bytes(workload)
    return [
        CutCost(
            cut=price.cut,
            name=price.name,
            round_s=price.expected_s,
            device_bytes=float(num_bytes[price.cut]),
            device_flop=float(flop[price.cut]),
            device_memory_bytes=float(memory_bytes[price.cut]),
            infeasible=price.infeasible,
        )
        for price in prices
    ]


def _prices(setting: Setting, workload: Workload, cuts: Sequence[int]) -> Sequence[CutPrice]:
    """Seconds of a round at each of these cuts, over the same states for all of them."""
    states = [Fleet.of(setting.states(n, spread=None)) for n in range(1, NUM_STATES + 1)]
    return priced_cuts(
        states,
        workload,
        sizes=Grouping("cpsl", num_clusters=setting.num_clusters).sizes(setting.num_devices),
        candidates=cuts,
        schedule=CUT_SCHEDULE,
        generator=np.random.default_rng(setting.seed),
        samples_all=True,
    ).prices


def cheapest_cut(setting: Setting) -> Setting:
    """Take the cut that a planner would choose: of the inner ones, that of the shortest round.

    InfeasiblePlanError if none of them fits the devices.
    """
    inner = cut_costs(setting)[1:-1]
    round_s = {each.cut: each.round_s for each in inner if each.round_s is not None}
    if not round_s:
        raise InfeasiblePlanError("no cut fits: " + "; ".join(each.infeasible for each in inner))
    return replace(setting, cut=min(round_s, key=round_s.__getitem__))


def at_costs(setting: Setting, table: CutTable, *, label_bits: float) -> Setting:
    """Take other costs of layers on the same devices; the cut is the setting's no more."""
    workload = replace(
        setting.workload,
        cuts=table,
        label_bits=label_bits,
        server=setting.scenario.server(table),
    )
    return replace(setting, workload=workload, cut=1)
