"""Where each device cuts: from the best cut of all, by what whole rounds take, as long as it gains.

It begins at the common cut, with the clusters, the codec and the shares of samples that were found
for it. Then cuts are changed given these clusters, codec and shares given the cuts, and clusters
given all of that, in turn for as long as the round gets shorter and the budget lasts (once, where
turns are looked up). So no round is longer than at the common cut.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edge_coordinator.planning.batch_shares import Sharing, pricer_of, sharings
from edge_coordinator.planning.clusters.clustering import GibbsSchedule, gibbs_clusters
from edge_coordinator.planning.cuts.choices import Choices
from edge_coordinator.planning.cuts.cut_layer import CutChoice, cheapest_cut
from edge_coordinator.planning.cuts.cut_prices import PricedCuts, priced_cuts
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.form import OwnCut
from edge_coordinator.planning.joint.starts import first_start
from edge_coordinator.planning.joint.turn_prices import TurnPrices
from edge_coordinator.planning.plan import InfeasiblePlanError
from profiles.device import DeviceState
from profiles.units import Counts, Floats

MOST_ALTERNATIONS = 2
"""Of cuts, codec and shares, and clusters."""
MOST_LOOKED_UP = 1
"""The same where turns are looked up: clusters formed for all cuts at once leave little to find."""
MOST_STEPS = 4
"""Each changes one device of each cluster."""
MOST_CHOICES = 4
"""That are tried of each device: those that are best for a cluster, and where devices are done
first."""
MOST_TURNS = 20_000
"""That are priced to find cuts; a sweep that is begun is ended."""
LEAST_GAIN = 0.02
"""Of a round's seconds: less is no reason to cut elsewhere, nor to go on."""
FAR = 4.0
"""Of the best cut's rounds: cuts whose rounds are longer than that are not looked at."""
_SHORTEST_S, _EXCHANGES = 1e-9, 9
"""Enough exchanges to compare whole rounds by."""
_OWN_WEIGHT = 1e-3
"""What a device's own seconds count beside its cluster's: of several that are waited for, one after
another has to get faster."""


def choose_cuts(
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
    """Choose a cut for each of the devices in the first of the states, the present one.

    As `cut_layer.choose_cut`, which says where to begin. A cut that some device cannot have is none
    for that device alone; so there may be cuts where there is none for all.
    """
    priced = priced_cuts(
        states, workload, sizes=sizes, candidates=candidates,
        schedule=schedule, generator=generator,
    )  # fmt: skip
    try:
        choice = cheapest_cut(priced.prices, workload, own=own, devices=devices)
    except InfeasiblePlanError:
        choice = None
    choices = Choices.of(states[0], workload.of_each_device(), candidates, devices)
    cut = choices.widest if choice is None else choice.cut
    choices = choices.without(_far(priced))
    search = _Search(states[0], choices, schedule, generator)
    first = search.priced(_first(states[0], workload, priced, choices, cut, sizes=sizes))
    best = search.improved(first)
    cuts = dict(zip(states[0].devices, best.cuts.tolist(), strict=True))
    elsewhere = {device: other for device, other in cuts.items() if other != cut}
    if choice is None:
        return CutChoice(cut, (), elsewhere)
    return CutChoice(cut, choice.prices, elsewhere, own_saved_s=first.took_s - best.took_s)


def _far(priced: PricedCuts) -> frozenset[int]:
    """Name the cuts at which rounds are so much longer that hardly a device is better off there."""
    costs_s = {each.cut: each.cost_s for each in priced.prices if each.expected_s is not None}
    most_s = FAR * min(costs_s.values(), default=0.0)
    return frozenset(cut for cut, cost_s in costs_s.items() if cost_s > most_s)


@dataclass(frozen=True)
class _Round:
    """A round with all that is chosen, and what it takes."""

    workload: Workload
    """Its codec chosen."""
    sharing: Sharing
    members: Counts
    cuts: Counts
    """[device]"""
    took_s: float


def _first(
    fleet: Fleet, workload: Workload, priced: PricedCuts, choices: Choices, cut: int, *,
    sizes: Counts,
) -> _Round:  # fmt: skip
    """Begin with the round that was sampled at the common cut, or next to it with like devices."""
    cuts, found = choices.nearest(cut), priced.rounds.get(cut)
    if found is not None:
        return _Round(found.workload, found.sharing, found.members, cuts, found.took_s)
    own = dict(zip(fleet.devices, cuts.tolist(), strict=True))
    start = first_start(
        fleet.cut_at(cut, own), workload.of_each_device().at_cuts(cuts), cut=cut, sizes=sizes
    )
    return _Round(start.workload, "equal", start.members, cuts, np.inf)


@dataclass(frozen=True)
class _Search:
    """The alternating search for cuts, and all else that a round's turns hang on."""

    fleet: Fleet
    choices: Choices
    schedule: GibbsSchedule
    generator: np.random.Generator
    _known: dict[Hashable, TurnPrices] = field(default_factory=dict, init=False)

    def improved(self, first: _Round) -> _Round:
        """Improve one choice after another as long as rounds get shorter."""
        best, priced = first, 0
        looks_up = self._prices(first.workload, first.sharing).looks_up
        for _ in range(MOST_LOOKED_UP if looks_up else MOST_ALTERNATIONS):
            tried, num_turns = self._with_cuts(best, is_first=best is first)
            priced += num_turns
            if (tried.cuts != best.cuts).any():
                tried = self._regrouped(self._recoded(tried))
            if tried.took_s < best.took_s:
                best, before_s = tried, best.took_s
                if tried.took_s < (1 - LEAST_GAIN) * before_s and priced < MOST_TURNS:
                    continue
            break
        return best if best.took_s < (1 - LEAST_GAIN) * first.took_s else first

    def priced(self, round_: _Round) -> _Round:
        """The same with its seconds as all rounds here are compared by."""
        return replace(round_, took_s=self._took_s(round_))

    def _prices(self, workload: Workload, sharing: Sharing) -> TurnPrices:
        """Price turns; what was once looked up for a codec is known from then on."""
        key = workload.chosen, sharing, workload.partings, workload.phi, workload.phis
        if key not in self._known:
            self._known[key] = TurnPrices(self.fleet, workload, sharing)
        return self._known[key]

    def _took_s(self, round_: _Round) -> float:
        cuts = np.where(round_.members < 0, 0, round_.cuts[round_.members])
        prices = self._prices(round_.workload, round_.sharing)
        return float(prices.turns_s(round_.members, cuts, max_exchanges=_EXCHANGES).sum())

    def _with_cuts(self, round_: _Round, *, is_first: bool) -> tuple[_Round, int]:
        """Change the cuts of devices as they are together; how many turns were priced for it."""
        choices, work = self.choices, round_.workload
        if round_.sharing != "equal":
            choices = choices.without(work.fixed_cuts)
        work = replace(work, phi=0.0 if work.phis else work.phi, phis=())
        prices = self._prices(work, round_.sharing)
        if not prices.looks_up:
            parted = [replace(work, micro_batches=(count,)) for count in work.partings]
            parted.sort(key=lambda one: self._took_s(replace(round_, workload=one)))
            prices = TurnPrices(self.fleet, parted[0], round_.sharing)
        descent = _Descent(prices, choices, round_.members)
        cuts = descent.improved(round_.cuts, is_first=is_first)
        return self.priced(replace(round_, cuts=cuts)), descent.num_turns

    def _recoded(self, round_: _Round) -> _Round:
        """Share samples out, and then take the codec, as is best with these clusters and cuts."""
        work = round_.workload
        for sharing in sharings(work.at_cuts(round_.cuts), cut=int(round_.cuts[0])):
            if sharing != round_.sharing:
                round_ = self._shorter(round_, replace(round_, sharing=sharing))
        for wire in work.wires if work.chosen else ():
            if wire.codecs != work.chosen:
                other = replace(work, chosen=wire.codecs)
                round_ = self._shorter(round_, replace(round_, workload=other))
        return round_

    def _shorter(self, round_: _Round, other: _Round) -> _Round:
        """Of two rounds, the second of which has to be priced."""
        return min(round_, self.priced(other), key=lambda one: one.took_s)

    def _regrouped(self, round_: _Round) -> _Round:
        """Sample clusters from these, at these cuts."""
        own = dict(zip(self.fleet.devices, round_.cuts.tolist(), strict=True))
        cut = int(round_.cuts[0])
        pricer = pricer_of(
            self.fleet.cut_at(cut, own), round_.workload, cut=cut, sharing=round_.sharing
        )
        members = gibbs_clusters(
            pricer, start=round_.members, schedule=self.schedule, generator=self.generator
        )
        return self._shorter(round_, replace(round_, members=members))


class _Descent:
    """One device's cut after another is changed, in all clusters at once."""

    def __init__(self, prices: TurnPrices, choices: Choices, members: Counts) -> None:
        self._prices = prices
        self._choices = choices
        self._members = members
        self.num_turns = 0
        """That were priced."""
        self._alone_s = self._priced_alone()

    def improved(self, cuts: Counts, *, is_first: bool) -> Counts:
        """Give the cuts that are found from those, [device]; the first time from others as well."""
        starts, starts_s, tried = self._starts(cuts)
        if not is_first:
            starts, starts_s = starts[:1], starts_s[:1]
        if MOST_STEPS * starts.size * len(tried) > MOST_TURNS:
            best, rows = starts_s.argmin(axis=0), np.arange(len(self._members))
            starts, starts_s = starts[best, rows][np.newaxis], starts_s[best, rows][np.newaxis]
        own = self._descended(starts, starts_s, tried)
        is_there, chosen = self._members >= 0, cuts.copy()
        chosen[self._members[is_there]] = own[is_there]
        return chosen

    def _starts(self, cuts: Counts) -> tuple[Counts, Floats, Counts]:
        """Begin as it is, at the best cut of each cluster, and where each device is done first.

        [start, cluster, position], and [start, cluster] of what turns are compared by; and the cuts
        that are worth to be tried.
        """
        devices, every = np.maximum(self._members, 0), self._choices.cuts
        first = every[self._alone_s.argmin(axis=-1)]
        near = np.stack([self._choices.nearest(int(cut)) for cut in every])
        forms = np.concatenate([cuts[np.newaxis], first[np.newaxis], near])[:, devices]
        forms_s, rows = self._ranked_s(forms), np.arange(len(devices))
        near_s = forms_s[2:]
        best = np.stack([np.zeros_like(rows), 2 + near_s.argmin(axis=0), np.ones_like(rows)])
        times = near_s / np.maximum(near_s.min(axis=0), _SHORTEST_S)
        order = times.sum(axis=-1).argsort(kind="stable")
        where, often = np.unique(first, return_counts=True)
        frequent = where[(-often).argsort(kind="stable")[:MOST_CHOICES]]
        tried = np.union1d(every[order[:MOST_CHOICES]], frequent)
        return forms[best, rows], forms_s[best, rows], tried

    def _descended(self, starts: Counts, starts_s: Floats, choices: Counts) -> Counts:
        """Make in each cluster the changes that gain most, one by one, from the starts that differ.

        Starts are [start, cluster, position]; gives what is best of each cluster.
        """
        num_clusters, width = self._members.shape
        every = np.tile(np.arange(num_clusters), len(starts))
        flat = np.column_stack([every, starts.reshape(-1, width)])
        found, where = np.unique(flat, axis=0, return_index=True)
        clusters, own, own_s = found[:, 0], found[:, 1:], starts_s.reshape(-1)[where]
        places, others = np.repeat(np.arange(width), len(choices)), np.tile(choices, width)
        device = self._members.T[places]  # [change, cluster]
        can_be = (device >= 0) & self._choices.allowed[
            device, np.searchsorted(self._choices.cuts, others)[:, np.newaxis]
        ]
        active = np.arange(len(own))
        for _ in range(MOST_STEPS):
            tried = np.repeat(own[np.newaxis, active], len(places), axis=0)
            tried[np.arange(len(places)), :, places] = others[:, np.newaxis]
            tried_s = self._ranked_s(tried, clusters[active])
            tried_s = np.where(can_be[:, clusters[active]], tried_s, np.inf)
            best, best_s = tried_s.argmin(axis=0), tried_s.min(axis=0)
            gains = best_s < own_s[active]
            active, best = active[gains], best[gains]
            if not active.size:
                break
            own[active, places[best]], own_s[active] = others[best], best_s[gains]
        order = np.lexsort((own_s, clusters))
        shortest: Counts = own[order[np.unique(clusters[order], return_index=True)[1]]]
        return shortest

    def _ranked_s(self, cuts: Counts, clusters: Counts | slice = slice(None)) -> Floats:
        """What turns of clusters are compared by; cuts are [..., cluster, position]."""
        members, width = np.broadcast_to(self._members[clusters], cuts.shape), cuts.shape[-1]
        turns_s = self._prices.turns_s(members.reshape(-1, width), cuts.reshape(-1, width))
        self.num_turns += len(turns_s)
        places = np.searchsorted(self._choices.cuts, cuts)
        own_s = np.where(members >= 0, self._alone_s[members, places], 0.0)
        ranked_s: Floats = turns_s.reshape(cuts.shape[:-1]) + _OWN_WEIGHT * own_s.sum(axis=-1)
        return ranked_s

    def _priced_alone(self) -> Floats:
        """Seconds of each device's turn by itself, [device, choice]; never where it cannot cut."""
        num_devices, num_choices = self._choices.allowed.shape
        rows = np.repeat(np.arange(num_devices), num_choices)[:, np.newaxis]
        cuts = np.tile(self._choices.cuts, num_devices)[:, np.newaxis]
        prices = replace(self._prices, sharing="equal")
        self.num_turns += len(rows)
        alone_s = prices.turns_s(rows, cuts).reshape(num_devices, num_choices)
        return np.where(self._choices.allowed, alone_s, 1e3 * alone_s.max())
