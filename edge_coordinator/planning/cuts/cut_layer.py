"""The cut layer: the cut whose expected round is shortest, by sample average approximation.

The expectation over states of devices and links is the average over a sample of them: recent
ones, or drawn ones. In each state the clusters and shares are chosen anew, as they would be in
the round. Only cuts whose device side fits the memory of every device are considered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_coordinator.planning.clusters.clustering import GibbsSchedule
from edge_coordinator.planning.cuts.cut_prices import priced_cuts
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.form import CutTask, OwnCut
from edge_coordinator.planning.plan import CutPrice, InfeasiblePlanError
from profiles.device import DeviceState
from profiles.units import Counts


@dataclass(frozen=True)
class CutChoice:
    """The chosen cut and what every cut that was considered is expected to cost."""

    cut: int
    prices: tuple[CutPrice, ...]
    own: Mapping[str, int] = field(default_factory=dict)
    """Device id to its cut, of those that cut at another layer."""
    own_saved_s: float = 0.0
    """Seconds of a round that these saved beside the one cut, when they were chosen."""

    @property
    def next_best(self) -> CutPrice | None:
        """The cheapest other cut, if any other is feasible."""
        others = [price for price in self.prices if price.cut != self.cut]
        return min(
            (price for price in others if price.expected_s is not None),
            key=lambda price: price.cost_s,
            default=None,
        )


def choose_cut(
    states: Sequence[Fleet],
    workload: Workload,
    *,
    sizes: Counts,
    candidates: Sequence[int],
    schedule: GibbsSchedule,
    generator: np.random.Generator,
    own: OwnCut | None = None,
    devices: Sequence[DeviceState] = (),
) -> CutChoice:
    """Choose the cut that counts as least in seconds and joules, the shallowest of equals.

    Or as `own` says. `devices` are those of the states as they are now, of whom it is told.
    """
    priced = priced_cuts(
        states, workload, sizes=sizes, candidates=candidates,
        schedule=schedule, generator=generator,
    )  # fmt: skip
    return cheapest_cut(priced.prices, workload, own=own, devices=devices)


def cheapest_cut(
    prices: tuple[CutPrice, ...],
    workload: Workload,
    *,
    own: OwnCut | None,
    devices: Sequence[DeviceState],
) -> CutChoice:
    """Choose among cuts that are priced; InfeasiblePlanError if none can be."""
    feasible = [price for price in prices if price.expected_s is not None]
    if not feasible:
        raise InfeasiblePlanError("no cut fits: " + "; ".join(each.infeasible for each in prices))
    if own is not None:
        return CutChoice(own(CutTask(devices, prices, workload.cuts)), prices)
    best = min(feasible, key=lambda price: price.cost_s)
    return CutChoice(best.cut, prices)
