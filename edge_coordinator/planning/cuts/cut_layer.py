"""The cut layer: the cut whose expected round is shortest, by sample average approximation.

The expectation over states of devices and links is the average over a sample of them: recent
ones, or drawn ones. In each state the clusters and shares are chosen anew, as they would be in
the round. Only cuts whose device side fits the memory of every device are considered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_coordinator.planning.batch_shares import best_start, pricer_of, shared_sizes, sharings
from edge_coordinator.planning.clusters.clustering import GibbsSchedule, gibbs_clusters
from edge_coordinator.planning.energy import weighed_s
from edge_coordinator.planning.fleet import Fleet, Workload, device_memory_bytes
from edge_coordinator.planning.form import CutTask, OwnCut
from edge_coordinator.planning.latency import round_s
from edge_coordinator.planning.micro_batches import Flows, gain_asked, smallest_of
from edge_coordinator.planning.plan import CutPrice, InfeasiblePlanError
from edge_coordinator.planning.pricing import THOROUGH_EXCHANGES
from edge_coordinator.planning.wire_choice import choose_wire
from profiles.device import DeviceState
from profiles.units import Counts, Floats

CUT_SCHEDULE = GibbsSchedule(
    num_sweeps=10, num_chains=4, warm=0.2, cool=0.02, coldest=0.001, descends=False
)
"""Enough to compare two cuts by: their clusters are not used."""


@dataclass(frozen=True)
class CutChoice:
    """The chosen cut and what every cut that was considered is expected to cost."""

    cut: int
    prices: tuple[CutPrice, ...]
    own: Mapping[str, int] = field(default_factory=dict)
    """Device id to its cut, of those that cut at another layer."""

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
    prices = price_cuts(
        states,
        workload,
        sizes=sizes,
        candidates=candidates,
        schedule=schedule,
        generator=generator,
    )
    feasible = [price for price in prices if price.expected_s is not None]
    if not feasible:
        raise InfeasiblePlanError("no cut fits: " + "; ".join(each.infeasible for each in prices))
    if own is not None:
        return CutChoice(own(CutTask(devices, prices, workload.cuts)), prices)
    best = min(feasible, key=lambda price: price.cost_s)
    return CutChoice(best.cut, prices)


def price_cuts(
    states: Sequence[Fleet],
    workload: Workload,
    *,
    sizes: Counts,
    candidates: Sequence[int],
    schedule: GibbsSchedule,
    generator: np.random.Generator,
) -> tuple[CutPrice, ...]:
    """Price cuts by the rounds that would be planned at them, or say why one is infeasible.

    The states are of the same devices. All cuts are compared on the same states and the same
    random numbers.
    """
    free_bytes = np.min([state.free_memory_bytes for state in states], axis=0)
    seeds = generator.integers(2**63, size=len(states)).tolist()
    prices = []
    for cut in sorted(candidates):
        name = workload.cuts.cut_names[cut]
        infeasible = workload.refused_cuts.get(cut) or _too_large(
            workload, cut=cut, devices=states[0].devices, free_bytes=free_bytes
        )
        if infeasible:
            prices.append(CutPrice(cut, name, None, infeasible))
            continue
        rounds = [
            _round(state, workload, cut=cut, sizes=sizes, schedule=schedule, seed=seed)
            for state, seed in zip(states, seeds, strict=True)
        ]
        expected_s, energy_s = np.mean(rounds, axis=0).tolist()
        prices.append(CutPrice(cut, name, expected_s, energy_s=energy_s))
    return tuple(prices)


def _too_large(workload: Workload, *, cut: int, devices: Sequence[str], free_bytes: Floats) -> str:
    """Say which device lacks the memory for a cut, or nothing if all have it."""
    needed_bytes = device_memory_bytes(workload)[cut]
    smallest = int(free_bytes.argmin())
    if needed_bytes <= free_bytes[smallest]:
        return ""
    return (
        f"cut {cut} needs {needed_bytes / 1e6:.3g} MB, "
        f"{devices[smallest]} has {free_bytes[smallest] / 1e6:.3g} MB free"
    )


def _round(
    fleet: Fleet,
    workload: Workload,
    *,
    cut: int,
    sizes: Counts,
    schedule: GibbsSchedule,
    seed: int,
) -> tuple[float, float]:
    """Seconds of the round that would be planned at this cut in this state; those of its joules."""
    workload = choose_wire(fleet, workload, cut=cut, sizes=sizes).workload
    rounds = []
    for sharing in sharings(workload, cut=cut):
        pricer = pricer_of(fleet, workload, cut=cut, sharing=sharing)
        start = best_start(pricer, sizes=sizes)
        members = gibbs_clusters(
            pricer, start=start, schedule=schedule, generator=np.random.default_rng(seed)
        )
        shares = pricer.shares(members, max_exchanges=THOROUGH_EXCHANGES)
        batch_sizes = shared_sizes(pricer, workload, members)
        flows = Flows(fleet, workload, cut, batch_sizes, smallest_of(members, batch_sizes))
        for flow in flows.allowed:
            seconds = flows.seconds(flow)
            took_s = float(round_s(seconds, workload, members=members, shares=shares))
            energy_s = weighed_s(
                fleet, workload, seconds, members=members, shares=shares, round_s=took_s
            )
            asked_s = gain_asked(flow) * took_s if workload.phis else 0.0
            rounds.append((took_s + energy_s + asked_s, took_s, energy_s))
    return min(rounds)[1:]
