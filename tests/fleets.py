"""A small network, random devices to plan for, and the search that tries every partition."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate, pairwise, permutations

import numpy as np

from edge_coordinator.planning.division.pricing import THOROUGH_EXCHANGES, Pricer
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.latency import phase_seconds
from profiles.cuts import CutTable, LayerCost
from profiles.device import ComputeState, DeviceState
from profiles.link import IndependentLinks, LinkState, Medium
from profiles.units import Counts, Floats

CUTS = CutTable(
    network="small",
    input_shape=(1, 28, 28),
    input_bytes=3136,
    layers=(
        LayerCost("conv", 2e6, 4e6, 10_000, (16, 14, 14), 12_544),
        LayerCost("pool", 1e5, 1e5, 0, (16, 7, 7), 3_136),
        LayerCost("wide", 1e6, 2e6, 400_000, (128,), 512),
        LayerCost("out", 1e4, 2e4, 5_000, (10,), 40),
    ),
)


def workload(medium: Medium, *, local_epochs: int = 1, loss_on_device: bool = False) -> Workload:
    """Ask for mini-batches of 16 with a server of 10 GFLOP/s."""
    server = ComputeState.of_server(CUTS, forward_flop_per_s=1e10, backward_flop_per_s=1e10)
    return Workload(
        *(CUTS, 16, local_epochs, 8.0, 256_000, server, medium), loss_on_device=loss_on_device
    )


def device(
    name: str, *, flop_per_s: float = 1e8, up_bps: float = 1e7, down_bps: float = 1e7
) -> DeviceState:
    """Build a device without overheads and with memory to spare."""
    compute = ComputeState.of_device(
        CUTS, forward_flop_per_s=flop_per_s, backward_flop_per_s=flop_per_s
    )
    return DeviceState(name, 100, 1e9, compute, LinkState(up_bps, down_bps, 0.0, 0.0))


def random_devices(
    generator: np.random.Generator,
    num_devices: int,
    *,
    flop_per_s: float = 1e8,
    up_bps: float = 1e7,
    decades: float = 1.5,
) -> list[DeviceState]:
    """Draw devices whose speeds and rates differ, by default by up to thirty times."""

    def draw(middle: float) -> Floats:
        return middle * 10 ** generator.uniform(-decades / 2, decades / 2, num_devices)

    speeds, ups, downs = draw(flop_per_s), draw(up_bps), draw(2 * up_bps)
    return [
        device(f"d{k:04}", flop_per_s=speeds[k], up_bps=ups[k], down_bps=downs[k])
        for k in range(num_devices)
    ]


def random_pricer(
    generator: np.random.Generator,
    num_devices: int,
    *,
    medium: Medium | None = None,
    local_epochs: int = 1,
    devices: Sequence[DeviceState] | None = None,
) -> Pricer:
    """Price clusters of random devices at the cut after `pool`."""
    work = workload(medium or IndependentLinks(), local_epochs=local_epochs)
    states = random_devices(generator, num_devices) if devices is None else devices
    seconds = phase_seconds(Fleet.of(states), work, cut=2)
    return Pricer(seconds, work.medium, label_mix=None, balance_weight=0.0)


def with_labels(state: DeviceState, label_counts: tuple[int, ...]) -> DeviceState:
    """Let a device publish its label counts."""
    return replace(state, label_counts=label_counts)


@lru_cache(maxsize=32)
def partitions(sizes: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Give every way to divide devices into clusters of these sizes, each of them once.

    Every order of the devices is cut at the ends of the clusters: slow, and nothing is missed.
    """
    ends = list(accumulate(sizes))
    found = {
        tuple(sorted(tuple(sorted(order[a:b])) for a, b in pairwise([0, *ends])))
        for order in permutations(range(ends[-1]))
    }
    return tuple(sorted(found))


def best_of_all_s(pricer: Pricer, sizes: Counts) -> float:
    """Price every partition and take the cheapest."""
    every = [
        [[*cluster, *[-1] * (sizes.max() - len(cluster))] for cluster in partition]
        for partition in partitions(tuple(sizes.tolist()))
    ]
    return float(pricer.cost_s(np.array(every), max_exchanges=THOROUGH_EXCHANGES).sum(-1).min())
