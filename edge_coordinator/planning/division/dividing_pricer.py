"""Prices clusters whose turns go in micro-batches, link and samples divided as is best for that."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from edge_coordinator.planning.division.device_turns import DeviceStages, DeviceTurns
from edge_coordinator.planning.division.dividing import divide_link, share_out
from edge_coordinator.planning.division.levels import Levels, equal_share, levels_of
from edge_coordinator.planning.division.limits import ROUNDING, SampleLimits
from edge_coordinator.planning.division.pricing import Pricer
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.latency import phase_seconds
from profiles.link import IndependentLinks
from profiles.units import Counts, Floats

TIMES = (1.0, 1.04, 1.2)
"""What clusters are looked up to take, at which samples are shared out: that is between levels, and
below the last moment for some device if it is unlucky."""


class _Work(Protocol):
    """Says something of clusters that are all of mixed cuts, or all of one."""

    def __call__(self, rows: Counts, /, *, is_mixed: bool) -> Floats: ...


@dataclass(frozen=True)
class DividingPricer(Pricer):
    """Prices clusters, many at once; members are [..., position], -1 for none.

    `seconds` are those of whole mini-batches.
    """

    stages: DeviceStages
    partings: Sequence[int]
    """Numbers of micro-batches to choose from."""
    samples: SampleLimits | None
    """None where mini-batches are of one size."""
    batch_size: int
    _levels: dict[tuple[int, bool], tuple[DeviceTurns, Levels, SampleLimits | None]] = field(
        default_factory=dict, init=False, compare=False
    )

    @classmethod
    def of(
        cls, fleet: Fleet, workload: Workload, *, cut: int, samples: SampleLimits | None,
        label_mix: Floats | None = None, balance_weight: float = 0.0,
    ) -> "DividingPricer":  # fmt: skip
        """Price clusters at a cut, with nothing aggregated where plans choose whether."""
        work = replace(workload, phi=0.0, phis=()) if workload.phis else workload
        once = phase_seconds(fleet, work, cut=cut)
        return cls(
            *(once, work.medium, label_mix, balance_weight),
            DeviceStages.of(fleet, work, cut=cut, once=once),
            [count for count in work.partings if count > 1],
            *(samples, work.batch_size),
        )

    def latency_s(self, members: Counts, *, max_exchanges: int) -> Floats:
        """Seconds of each cluster, [...]."""
        del max_exchanges
        rows = members.reshape(-1, members.shape[-1])
        return self._by_mix(self._turns_s, rows).reshape(members.shape[:-1])

    def shares(self, members: Counts, *, max_exchanges: int) -> Floats:
        """Divide the link within each cluster, [..., position]."""
        del max_exchanges
        rows = members.reshape(-1, members.shape[-1])
        return self._by_mix(self._divided, rows).reshape(members.shape)

    def sample_weights(self, members: Counts, shares: Floats | None = None) -> Floats:
        """How large the devices' mini-batches are, relative to the job's, [..., position]."""
        del shares
        if self.samples is None:
            return (members >= 0).astype(np.float64)
        rows = members.reshape(-1, members.shape[-1])
        return self._by_mix(self._shared_out, rows).reshape(members.shape)

    @property
    def shares_out(self) -> bool:
        """Whether mini-batches are of several sizes."""
        return self.samples is not None

    def shared_out(self, members: Counts, *, batch: int) -> Counts:
        """Share out whole samples, [cluster, position]; a mini-batch of the job has so many."""
        return np.round(batch * self.sample_weights(members)).astype(np.int64)

    def samples_of(self, width: int, *, is_mixed: bool) -> SampleLimits | None:
        """How many samples devices may have in clusters of up to so many."""
        return self._of_width(width, is_mixed=is_mixed)[2]

    def _by_mix(self, work: _Work, rows: Counts) -> Floats:
        """Look at clusters of mixed cuts by themselves."""
        is_mixed = self.seconds.are_mixed(rows)
        if is_mixed.all() or not is_mixed.any():
            return work(rows, is_mixed=bool(is_mixed.any()))
        mixed = work(rows[is_mixed], is_mixed=True)
        alike = work(rows[~is_mixed], is_mixed=False)
        every = np.empty((len(rows), *mixed.shape[1:]))
        every[is_mixed], every[~is_mixed] = mixed, alike
        return every

    def _turns_s(self, rows: Counts, *, is_mixed: bool) -> Floats:
        turns, levels, _ = self._of_width(rows.shape[-1], is_mixed=is_mixed)
        if self.samples is None and isinstance(self.medium, IndependentLinks):
            longest_s: Floats = turns.at(np.ones(1), np.ones(1))[rows].max(axis=-1)
            return longest_s
        return levels.turns_s(rows)

    def _divided(self, rows: Counts, *, is_mixed: bool) -> Floats:
        turns, _, _ = self._of_width(rows.shape[-1], is_mixed=is_mixed)
        return divide_link(
            turns.of_devices(rows), self._shared_out(rows, is_mixed=is_mixed),
            present=rows >= 0, medium=self.medium,
        )  # fmt: skip

    def _shared_out(self, rows: Counts, *, is_mixed: bool) -> Floats:
        turns, levels, samples = self._of_width(rows.shape[-1], is_mixed=is_mixed)
        if samples is None:
            return (rows >= 0).astype(np.float64)
        batch, whole_s = self.batch_size, levels.turns_s(rows)
        least, most = (
            np.append(np.floor(each * batch + ROUNDING).astype(np.int64), 0)[rows]
            for each in (samples.least, samples.most)
        )
        best, best_s = np.zeros(rows.shape), np.full(len(rows), np.inf)
        own = turns.of_devices(rows)
        for times in TIMES:
            sizes = share_out(
                own, times * whole_s, least=least, most=most, batch=batch, medium=self.medium
            ) / batch  # fmt: skip
            shares = divide_link(own, sizes, present=rows >= 0, medium=self.medium)
            took_s = np.where(rows >= 0, own.at(sizes, shares), 0.0).max(axis=-1)
            best = np.where((took_s < best_s)[:, np.newaxis], sizes, best)
            best_s = np.minimum(best_s, took_s)
        return best

    def _of_width(
        self, width: int, *, is_mixed: bool
    ) -> tuple[DeviceTurns, Levels, SampleLimits | None]:
        """Look devices up in the micro-batches that suit clusters of so many, once."""
        key = width, is_mixed
        if key not in self._levels:
            share = equal_share(self.medium, width=width)
            shares, sizes = np.full(1, share), np.ones(1)
            partings = [self.stages.turns(count, is_mixed=is_mixed) for count in self.partings]
            turns = min(partings, key=lambda each: float(each.at(sizes, shares).sum()))
            turns = turns.without_shorter()
            every = DeviceTurns(*(each[:, :-1] for each in turns.parts))
            levels_s = levels_of(every, samples=self.samples, medium=self.medium, width=width)
            samples = self.samples and self.samples.not_starved(
                every, levels_s, share=share, sample=1 / self.batch_size
            )
            levels = Levels.of(every, self.medium, levels_s, samples=samples, width=width)
            self._levels[key] = turns, levels, samples
        return self._levels[key]
