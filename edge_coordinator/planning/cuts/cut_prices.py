"""What a round at each cut is expected to take: first roughly, then with its clusters sampled.

First cuts are priced with devices of like finish time together; clusters are sampled at those that
come near the best of them, so that their clusters and shares are those that a plan would have.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from edge_coordinator.planning.batch_shares import (
    Sharing,
    best_start,
    pricer_of,
    shared_sizes,
    sharings,
)
from edge_coordinator.planning.clusters.clustering import (
    GibbsSchedule,
    gibbs_clusters,
    mixed_clusters,
)
from edge_coordinator.planning.division.pricing import THOROUGH_EXCHANGES
from edge_coordinator.planning.energy import weighed_s
from edge_coordinator.planning.fleet import Fleet, Workload, device_memory_bytes
from edge_coordinator.planning.joint.starts import RoundStart, starts_at
from edge_coordinator.planning.joint.turn_prices import TurnPrices
from edge_coordinator.planning.latency import round_s
from edge_coordinator.planning.micro_batches import Flows, gain_asked, smallest_of
from edge_coordinator.planning.plan import CutPrice
from profiles.units import Counts, Floats

REACH = 0.25
"""Of the best rough price: what is further above it is not sampled."""
SAME = 1e-9
"""Of a price: by as much two may differ that are of the same round."""
MOST_SAMPLED = 4
"""Cuts and ways to share samples out, together."""

Way = tuple[int, Sharing]
"""A cut, and how samples are shared out at it."""


@dataclass(frozen=True)
class SampledRound:
    """A round that a plan could have at a cut, and what it counts as."""

    workload: Workload
    """Its codec chosen."""
    sharing: Sharing
    members: Counts
    took_s: float
    energy_s: float


@dataclass(frozen=True)
class PricedCuts:
    """What each cut is expected to cost; and a round in the first state, of cuts sampled at."""

    prices: tuple[CutPrice, ...]
    rounds: Mapping[int, SampledRound]


@dataclass(frozen=True)
class _States:
    """Sampled states of the same devices, with what to begin from in each, by cut."""

    fleets: Sequence[Fleet]
    starts: Sequence[Mapping[int, RoundStart]]
    seeds: Sequence[int]

    def rough_s(self, ways: Sequence[Way]) -> Floats:
        """Seconds of a round in the mean, [way], with devices of like finish time together."""
        both = zip(self.fleets, self.starts, strict=True)
        expected_s: Floats = np.mean([_rough_s(fleet, own, ways) for fleet, own in both], axis=0)
        return expected_s

    def sampled(self, way: Way, schedule: GibbsSchedule) -> list[SampledRound]:
        """Sample clusters in each state; of each the same random numbers whatever the cut."""
        each = zip(self.fleets, self.starts, self.seeds, strict=True)
        return [
            _sampled(fleet, starts[way[0]], way, schedule=schedule, seed=seed)
            for fleet, starts, seed in each
        ]


def priced_cuts(
    states: Sequence[Fleet],
    workload: Workload,
    *,
    sizes: Counts,
    candidates: Sequence[int],
    schedule: GibbsSchedule,
    generator: np.random.Generator,
    samples_all: bool = False,
) -> PricedCuts:
    """Price cuts by the rounds that would be planned at them, or say why one is infeasible.

    The states are of the same devices. All cuts are compared on the same states and the same
    random numbers. Clusters are sampled at those near the best, or at all.
    """
    free_bytes = np.min([state.free_memory_bytes for state in states], axis=0)
    seeds = generator.integers(2**63, size=len(states)).tolist()
    why_not = {
        cut: workload.refused_cuts.get(cut)
        or _too_large(workload, cut=cut, devices=states[0].devices, free_bytes=free_bytes)
        for cut in sorted(candidates)
    }
    cuts = [cut for cut, why in why_not.items() if not why]
    starts = [starts_at(state, workload, cuts=cuts, sizes=sizes) for state in states]
    prices, rounds = _feasible_prices(
        workload, cuts, _States(states, starts, seeds), schedule=schedule, samples_all=samples_all
    )
    refused = [
        CutPrice(cut, workload.cuts.cut_names[cut], None, why)
        for cut, why in why_not.items()
        if why
    ]
    by_cut = sorted([*prices, *refused], key=lambda price: price.cut)
    return PricedCuts(tuple(by_cut), rounds)


def _feasible_prices(
    workload: Workload,
    cuts: Sequence[int],
    states: _States,
    *,
    schedule: GibbsSchedule,
    samples_all: bool,
) -> tuple[list[CutPrice], dict[int, SampledRound]]:
    """Price each cut by the cheapest way to share samples out there."""
    ways = [(cut, sharing) for cut in cuts for sharing in sharings(workload, cut=cut)]
    costs_s = {
        way: (float(each), 0.0) for way, each in zip(ways, states.rough_s(ways), strict=True)
    }
    rounds: dict[Way, SampledRound] = {}
    # Joules are no turn's alone: where they count, all are sampled.
    samples_all = samples_all or bool(workload.energy_weight)
    for alike in [[way] for way in ways] if samples_all else _near(costs_s):
        found = states.sampled(alike[0], schedule)
        took = np.mean([(each.took_s, each.energy_s) for each in found], axis=0)
        costs_s |= dict.fromkeys(alike, (float(took[0]), float(took[1])))
        rounds[alike[0]] = found[0]
    prices, best = [], {}
    for cut, own in groupby(ways, key=lambda way: way[0]):
        way = min(own, key=lambda each: sum(costs_s[each]))
        took_s, energy_s = costs_s[way]
        prices.append(CutPrice(cut, workload.cuts.cut_names[cut], took_s, energy_s=energy_s))
        if way in rounds:
            best[cut] = rounds[way]
    return prices, best


def _near(rough_s: Mapping[Way, tuple[float, float]]) -> list[list[Way]]:
    """Choose the ways to sample, the cheapest: of those that cost the same the first will do.

    Some layers change neither what is computed nor what travels.
    """
    ways = sorted(rough_s, key=lambda way: rough_s[way][0])
    alike: list[list[Way]] = []
    for way in ways:
        if alike and rough_s[way][0] <= (1 + SAME) * rough_s[alike[-1][0]][0]:
            alike[-1].append(way)
        else:
            alike.append([way])
    costs_s = [rough_s[each[0]][0] for each in alike]
    return [
        each
        for each, cost_s in zip(alike[:MOST_SAMPLED], costs_s, strict=False)
        if cost_s <= (1 + REACH) * costs_s[0]
    ]


def _rough_s(fleet: Fleet, starts: Mapping[int, RoundStart], ways: Sequence[Way]) -> Floats:
    """Seconds of a round from its start, [way]; from the better one of two if samples go round."""
    rounds_s = np.empty(len(ways))
    alike = defaultdict[Hashable, list[int]](list)
    for place, (cut, sharing) in enumerate(ways):
        work = starts[cut].workload
        together = cut if work.phi or work.phis else None  # Else all cuts go at once.
        alike[work.chosen, sharing, together].append(place)
    for places in alike.values():
        sharing = ways[places[0]][1]
        own = [starts[ways[place][0]] for place in places]
        prices = TurnPrices(fleet, own[0].workload, sharing)
        forms = [[start.members for start in own]]
        if sharing != "equal":
            forms.append([mixed_clusters(start.members) for start in own])
        rounds_s[places] = np.min(
            [_rounds_s(prices, form, [ways[place][0] for place in places]) for form in forms],
            axis=0,
        )
        rounds_s[places] += own[0].workload.round_overhead_s
    return rounds_s


def _rounds_s(prices: TurnPrices, members: Sequence[Counts], cuts: Sequence[int]) -> Floats:
    """Seconds of all turns of each round, [choice], that is cut at one layer."""
    rows = np.concatenate(members)
    own = np.repeat(cuts, [len(each) for each in members])[:, np.newaxis]
    turns_s = prices.turns_s(rows, np.broadcast_to(own, rows.shape))
    rounds_s: Floats = turns_s.reshape(len(members), -1).sum(axis=-1)
    return rounds_s


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


def _sampled(
    fleet: Fleet, start: RoundStart, way: Way, *, schedule: GibbsSchedule, seed: int
) -> SampledRound:
    """Plan the round of this cut in this state, and price it in the micro-batches that suit it."""
    (cut, sharing), workload = way, start.workload
    pricer = pricer_of(fleet, workload, cut=cut, sharing=sharing)
    members = gibbs_clusters(
        pricer,
        start=best_start(pricer, alike=start.members),
        schedule=schedule,
        generator=np.random.default_rng(seed),
    )
    batch_sizes = shared_sizes(pricer, workload, members)
    flows = Flows(fleet, workload, cut, batch_sizes, smallest_of(members, batch_sizes))
    rounds = []
    for flow in flows.allowed:
        seconds = flows.seconds(flow)
        shares = flows.shares(members, flow, max_exchanges=THOROUGH_EXCHANGES)
        took_s = float(round_s(seconds, workload, members=members, shares=shares))
        energy_s = weighed_s(
            fleet, workload, seconds, members=members, shares=shares, round_s=took_s
        )
        asked_s = gain_asked(flow) * took_s if workload.phis else 0.0
        rounds.append((took_s + energy_s + asked_s, took_s, energy_s))
    return SampledRound(workload, sharing, members, *min(rounds)[1:])
