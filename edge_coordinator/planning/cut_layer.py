"""The cut layer: the cut whose expected round is shortest, by sample average approximation.

The expectation over states of devices and links is the average over a sample of them: recent
ones, or drawn ones. In each state the clusters and shares are chosen anew, as they would be in
the round. Only cuts whose device side fits the memory of every device are considered.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_coordinator.planning.clustering import GibbsSchedule, gibbs_clusters, sorted_clusters
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.latency import phase_seconds, round_s
from edge_coordinator.planning.plan import CutPrice, InfeasiblePlanError
from edge_coordinator.planning.pricing import THOROUGH_EXCHANGES, Pricer
from edge_coordinator.planning.wire_choice import choose_wire
from profiles.units import BITS_PER_BYTE, Counts, Floats

MODEL_COPIES = 3
"""Weights, gradients and one optimiser state of the same size."""
ACTIVATION_COPIES = 2
"""What the forward pass keeps, and its gradients."""


@dataclass(frozen=True)
class CutChoice:
    """The chosen cut and what every cut that was considered is expected to cost."""

    cut: int
    prices: tuple[CutPrice, ...]

    @property
    def next_best(self) -> CutPrice | None:
        """The cheapest other cut, if any other is feasible."""
        others = [price for price in self.prices if price.cut != self.cut]
        return min(
            (price for price in others if price.expected_s is not None),
            key=lambda price: price.expected_s or 0.0,
            default=None,
        )


def device_memory_bytes(workload: Workload) -> Floats:
    """Estimate the memory that training the device side takes, or what is known of it, [cut]."""
    cuts = workload.cuts
    activation_bytes = np.cumsum(cuts.smashed_bits) / BITS_PER_BYTE
    needed_bytes: Floats = (
        MODEL_COPIES * cuts.device_model_bits / BITS_PER_BYTE
        + cuts.device_frozen_bytes
        + ACTIVATION_COPIES * workload.batch_size * activation_bytes
    )
    for cut, known_bytes in workload.known_bytes.items():
        needed_bytes[cut] = max(needed_bytes[cut], known_bytes)
    return needed_bytes


def choose_cut(
    states: Sequence[Fleet],
    workload: Workload,
    *,
    sizes: Counts,
    candidates: Sequence[int],
    schedule: GibbsSchedule,
    generator: np.random.Generator,
) -> CutChoice:
    """Choose the cut of least expected seconds; the shallowest of equals."""
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
    best = min(feasible, key=lambda price: price.expected_s or 0.0)
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
        rounds_s = [
            _round_s(state, workload, cut=cut, sizes=sizes, schedule=schedule, seed=seed)
            for state, seed in zip(states, seeds, strict=True)
        ]
        prices.append(CutPrice(cut, name, float(np.mean(rounds_s))))
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


def _round_s(
    fleet: Fleet,
    workload: Workload,
    *,
    cut: int,
    sizes: Counts,
    schedule: GibbsSchedule,
    seed: int,
) -> float:
    """Seconds of the round that would be planned at this cut in this state."""
    workload = choose_wire(fleet, workload, cut=cut, sizes=sizes)
    seconds = phase_seconds(fleet, workload, cut=cut)
    pricer = Pricer(seconds, workload.medium, label_mix=None, balance_weight=0.0)
    members = gibbs_clusters(
        pricer,
        start=sorted_clusters(pricer, sizes=sizes),
        schedule=schedule,
        generator=np.random.default_rng(seed),
    )
    shares = pricer.shares(members, max_exchanges=THOROUGH_EXCHANGES)
    return min(
        float(
            round_s(
                phase_seconds(fleet, workload, cut=cut, micro_batches=count),
                workload,
                members=members,
                shares=shares,
            )
        )
        for count in workload.partings
    )
