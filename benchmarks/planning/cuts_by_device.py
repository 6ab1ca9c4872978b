"""What cuts by device gain over the best common cut: LeNet on fleets that differ more and more."""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np

from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.planner import plan_round
from edge_coordinator.replanning.device_states import cuts_before
from profiles.cuts import CutTable
from profiles.device import ComputeState, DeviceState
from profiles.link import IndependentLinks, LinkState
from runtime.models.cut_table import measure_cut_table
from runtime.models.load import load_network

FLEETS = 8
SPREADS = (0.5, 1.5, 2.5)
"""Decades between the slowest and the fastest, in compute and in rates."""
FLOP_PER_S, UP_BPS, SERVER_FLOP_PER_S = 3e8, 5e6, 1e10


def lenet() -> CutTable:
    """Count the layers of LeNet."""
    network = load_network("lenet", {}, seed=0)
    return measure_cut_table(network, name="lenet", input_shape=(1, 28, 28))


def rounds_s(
    table: CutTable, devices: list[DeviceState], *, cluster_size: int
) -> tuple[float, float, float]:
    """Seconds of a round with a common cut, and with cuts by device; what choosing those took."""
    flop_per_s = SERVER_FLOP_PER_S
    server = ComputeState.of_server(
        table, forward_flop_per_s=flop_per_s, backward_flop_per_s=flop_per_s
    )
    work = Workload(*(table, 16, 1, 8.0, 256_000, server, IndependentLinks()), loss_on_device=False)
    binding = cuts_before(devices, range(1, table.num_layers), beyond=())
    work = replace(work, refused_cuts=binding, refused_to_each={})
    found = []
    for by_device in (False, True):
        grouping = Grouping("cpsl", cluster_size=cluster_size, cuts_by_device=by_device)
        start_s, generator = time.process_time(), np.random.default_rng(0)
        plan = plan_round(devices, work, grouping=grouping, cut=None, generator=generator)
        found += [plan.predicted_s or 0.0, time.process_time() - start_s]
    common_s, common_took_s, own_s, own_took_s = found
    return common_s, own_s, own_took_s - common_took_s


def fleet(table: CutTable, seed: int, num_devices: int, *, decades: float) -> list[DeviceState]:
    """Draw devices whose speeds and rates differ by so many decades."""
    generator = np.random.default_rng(seed)
    spread = 10 ** generator.uniform(-decades / 2, decades / 2, (3, num_devices))
    return [
        DeviceState(
            f"d{k:04}",
            num_samples=100,
            free_memory_bytes=np.inf,
            compute=ComputeState.of_device(
                table,
                forward_flop_per_s=FLOP_PER_S * speed,
                backward_flop_per_s=FLOP_PER_S * speed,
            ),
            link=LinkState(UP_BPS * up, 2 * UP_BPS * down, 0.0, 0.0),
        )
        for k, (speed, up, down) in enumerate(spread.T)
    ]


def rows() -> Iterator[tuple[object, ...]]:
    """Give a row for each kind of fleet: how far it differs, and what cuts by device gain in it.

    Of each how many owners let nothing out before fc2, how many devices there are, the median gain,
    the largest one, and the most seconds that choosing took.
    """
    table = lenet()
    for num_devices, decades, vetoes in product((30, 1000), SPREADS, (0, 1)):
        gains, took_s = [], []
        for seed in range(FLEETS if num_devices < 1000 else 1):
            devices = fleet(table, seed, num_devices, decades=decades)
            for k in range(vetoes):
                devices[k] = replace(devices[k], shallowest_cut=table.cut_names.index("fc2"))
            common_s, own_s, own_took_s = rounds_s(table, devices, cluster_size=5)
            gains.append(common_s / own_s)
            took_s.append(own_took_s)
        yield decades, vetoes, num_devices, float(np.median(gains)), max(gains), max(took_s)
