"""The shortest round there is: every clustering, and every division of the subcarriers, tried."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np

from edge_coordinator.planning.division.pricing import THOROUGH_EXCHANGES, Pricer
from edge_coordinator.planning.latency import cluster_latency_s
from profiles.link import Subcarriers
from profiles.units import Counts, Floats


def best_round_s(pricer: Pricer, *, sizes: Counts) -> float:
    """Seconds of the best partition into clusters of these sizes, the link divided at its best.

    Exponential in the devices: for eight of them, or so. A link that is divided freely is divided
    by the planner, since its divisions cannot be listed.
    """
    devices = range(int(sizes.sum()))
    own_s = {
        members: _best_cluster_s(pricer, members)
        for size in set(sizes.tolist())
        for members in combinations(devices, size)
    }
    return min(
        sum(own_s[cluster] for cluster in clusters)
        for clusters in _partitions(devices, tuple(sizes.tolist()))
    )


def _best_cluster_s(pricer: Pricer, members: tuple[int, ...]) -> float:
    row = np.array([members])
    if not isinstance(pricer.medium, Subcarriers):
        return float(pricer.latency_s(row, max_exchanges=THOROUGH_EXCHANGES)[0])
    shares = _divisions(pricer.medium.num_subcarriers, len(members))
    rows = np.repeat(row, len(shares), axis=0)
    return float(cluster_latency_s(pricer.seconds, members=rows, shares=shares).min())


@lru_cache(maxsize=8)
def _divisions(num_subcarriers: int, num_devices: int) -> Floats:
    """List every way to give all subcarriers out, one at least to each, [division, device]."""
    cuts = np.array(list(combinations(range(1, num_subcarriers), num_devices - 1)), dtype=np.int64)
    ends = np.concatenate(
        [np.zeros((len(cuts), 1)), cuts, np.full((len(cuts), 1), num_subcarriers)], axis=1
    )
    shares: Floats = np.diff(ends, axis=1) / num_subcarriers
    return shares


def _partitions(devices: Sequence[int], sizes: tuple[int, ...]) -> Iterator[list[tuple[int, ...]]]:
    """Give every way to part devices into clusters of these sizes, each of them once."""
    if not sizes:
        yield []
        return
    first, *others = devices
    for size in sorted(set(sizes), reverse=True):
        rest = list(sizes)
        rest.remove(size)
        for chosen in combinations(others, size - 1):
            left = [each for each in others if each not in chosen]
            for tail in _partitions(left, tuple(rest)):
                yield [(first, *chosen), *tail]
