"""The best clusters of up to thirty devices, by HiGHS: a choice among all clusters there could be.

Every set of devices of a cluster's size is a column with its price; the best partition takes each
device once. From the prices of the relaxed choice follows which columns cannot be in a better
partition than one that is known, and only the others are given to the exact solver.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csc_matrix

from edge_coordinator.planning.division.pricing import THOROUGH_EXCHANGES, Pricer
from profiles.units import Counts, Floats

ROWS_AT_ONCE = 4000
ROUNDING = 1e-7


def exact_round_s(pricer: Pricer, sizes: Counts, *, known_s: float) -> float:
    """Seconds of the best partition into clusters of these sizes; `known_s` are those of a plan."""
    columns, costs_s = _columns(pricer, sizes)
    rows, right = _constraints(columns, sizes)
    relaxed = linprog(costs_s, A_eq=rows, b_eq=right, method="highs")
    reduced_s = costs_s - relaxed.eqlin.marginals @ rows
    kept = np.flatnonzero(reduced_s <= (known_s - relaxed.fun) * (1 + ROUNDING) + ROUNDING)
    exact = milp(
        costs_s[kept],
        constraints=LinearConstraint(rows[:, kept], right, right),
        integrality=np.ones(len(kept)),
        bounds=Bounds(0, 1),
    )
    return float(exact.fun)


def _columns(pricer: Pricer, sizes: Counts) -> tuple[list[Counts], Floats]:
    """List every cluster there could be, by size, and what each costs."""
    num_devices = int(sizes.sum())
    columns = [
        np.array(list(combinations(range(num_devices), size))) for size in np.unique(sizes).tolist()
    ]
    costs_s = [
        pricer.latency_s(part, max_exchanges=THOROUGH_EXCHANGES)
        for clusters in columns
        for part in _parts(clusters)
    ]
    return columns, np.concatenate(costs_s)


def _parts(clusters: Counts) -> Iterator[Counts]:
    yield from np.array_split(clusters, -(-len(clusters) // ROWS_AT_ONCE))


def _constraints(columns: list[Counts], sizes: Counts) -> tuple[csc_matrix, Floats]:
    """Require each device once, and as many clusters of each size as there are, [row, column]."""
    num_devices = int(sizes.sum())
    rows = [
        np.concatenate([clusters, np.full((len(clusters), 1), num_devices + index)], axis=1)
        for index, clusters in enumerate(columns)
    ]
    sizes_of = [part.shape[1] for part in rows for _ in part]
    starts = np.cumsum([0, *sizes_of])
    entries = np.concatenate([part.ravel() for part in rows])
    matrix = csc_matrix((np.ones(len(entries)), entries, starts))
    _, counts = np.unique(sizes, return_counts=True)
    return matrix, np.concatenate([np.ones(num_devices), counts])
