"""The devices of a simulation: their data, and what each computes and carries in each round."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from edge_coordinator.job.job import Job
from edge_coordinator.job.settings import device_names
from edge_coordinator.training.averaging import believed_counts
from profiles.cuts import CutTable
from profiles.device import DeviceState
from profiles.power import Power
from profiles.scenario import Scenario
from profiles.variation import between_devices, between_rounds
from runtime.datasets.partition import partition
from runtime.datasets.samples import MOST_CLASSES, Samples
from runtime.datasets.shard import Shard, in_order_of_arrival, make_shard
from runtime.errors import SettingsError
from runtime.seeding import Purpose

OwnSamples = Mapping[str, Samples]
"""Device id to its own data."""


def deal_samples(job: Job, train: Samples) -> OwnSamples:
    """Share the training samples out as local mode does, to the excluded devices as well."""
    settings = job.settings
    names = device_names(settings.devices.count)
    parts = partition(train.y, settings.data.partition, num_devices=len(names), seed=settings.seed)
    return {device: train.take(part) for device, part in zip(names, parts, strict=True)}


def make_shards(job: Job, own: OwnSamples, scenario: Scenario) -> dict[str, Shard]:
    """Split the samples of each device that takes part as an agent would."""
    excluded = job.settings.devices.exclude
    shards = {}
    for number, (device, samples) in enumerate(sorted(own.items())):
        if device not in excluded:
            stated, seed = scenario.class_of(number), job.settings.seed
            order = stated.growth_order if stated.growth else "source"
            ordered = in_order_of_arrival(device, samples, order, seed=seed)
            shards[device] = make_shard(device, job.assignment, ordered, grows=bool(stated.growth))
    if not shards:
        raise SettingsError(f"devices.exclude leaves none of {len(own)} devices")
    return shards


def drawn_states(
    scenario: Scenario,
    devices: Sequence[str],
    cuts: CutTable,
    *,
    seed: int,
    round_: int,
    elapsed_s: float,
) -> Sequence[DeviceState]:
    """Draw what these devices compute and carry in one round."""
    count = len(devices)
    # The 1 keeps the address apart from (seed, number of devices), which is a partition's.
    lasting = np.random.default_rng((seed, Purpose.SPREAD, 1))
    passing = np.random.default_rng((seed, Purpose.STATES, round_))
    factors = between_devices(scenario.spread, count=count, generator=lasting) * between_rounds(
        scenario.spread, count=count, generator=passing
    )
    return scenario.device_states(devices, cuts=cuts, factors=factors, elapsed_s=elapsed_s)


class World:
    """What the devices of a scenario are at each moment; equal seeds give equal worlds.

    `devices` are all that there are, in the order of their numbers: a device is what it is
    whether others take part or not. Those with a shard take part.
    """

    def __init__(
        self,
        scenario: Scenario,
        devices: Sequence[str],
        shards: Mapping[str, Shard],
        cuts: CutTable,
        *,
        seed: int,
        power: Callable[[str, str], Power],
    ) -> None:
        """`power` says what a device of some processor draws; a scenario's are of none."""
        self._scenario = scenario
        self._devices = devices
        self._shards = shards
        self._cuts = cuts
        self._seed = seed
        self._power = power

    def states(
        self, round_: int, *, elapsed_s: float, with_labels: bool = False
    ) -> Sequence[DeviceState]:
        """Draw the states of the devices that take part in a round that begins at this moment."""
        states = drawn_states(
            self._scenario,
            self._devices,
            self._cuts,
            seed=self._seed,
            round_=round_,
            elapsed_s=elapsed_s,
        )
        shards = self.shards(self.grown(round_, elapsed_s=elapsed_s))
        believed = believed_counts({device: len(shard.kept) for device, shard in shards.items()})
        return [
            self._with_data(
                replace(state, num_samples=believed[state.device]),
                shards[state.device],
                with_labels=with_labels,
            )
            for state in states
            if state.device in shards
        ]

    def grown(self, round_: int, *, elapsed_s: float) -> dict[str, int]:
        """How many samples devices train on in such a round, of those whose data grow."""
        return {
            device: shard.num_kept(num_there)
            for device, shard, num_there in self._there(round_, elapsed_s)
        }

    def at_start(self) -> dict[str, Shard]:
        """What devices have when they become ready: they evaluate on what they then hold out."""
        there = {device: shard.arrived(n) for device, shard, n in self._there(1, 0.0)}
        return {**self._shards, **there}

    def shards(self, counts: Mapping[str, int]) -> dict[str, Shard]:
        """What devices train on, where these have so many samples for it and the others all."""
        first = {device: self._shards[device].first(count) for device, count in counts.items()}
        return {**self._shards, **first}

    def _there(self, round_: int, elapsed_s: float) -> Iterator[tuple[str, Shard, int]]:
        """Devices whose data grow, with how many of all their samples are there."""
        for number, device in enumerate(self._devices):
            stated, shard = self._scenario.class_of(number), self._shards.get(device)
            if stated.growth and shard is not None:
                total = len(shard.samples)
                yield device, shard, stated.num_there(total, round_=round_, elapsed_s=elapsed_s)

    def _with_data(self, state: DeviceState, shard: Shard, *, with_labels: bool) -> DeviceState:
        counts, labels = None, shard.packed
        are_classes = np.issubdtype(labels.dtype, np.integer) and labels.ndim == 1
        if with_labels and are_classes and self._num_classes <= MOST_CLASSES:
            counts = tuple(np.bincount(shard.y, minlength=self._num_classes).tolist())
        power = self._power(state.device, "")
        return replace(state, label_counts=counts, power=power)

    @cached_property
    def _num_classes(self) -> int:
        return 1 + max(int(shard.y.max()) for shard in self._shards.values())
