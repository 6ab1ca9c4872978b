"""The devices of a simulation: their data, and what each computes and carries in each round."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from edge_coordinator.job.job import Job
from edge_coordinator.job.settings import device_names
from profiles.cuts import CutTable
from profiles.device import DeviceState
from profiles.power import Power
from profiles.scenario import Scenario
from profiles.variation import between_devices, between_rounds
from runtime.datasets.partition import partition
from runtime.datasets.samples import MOST_CLASSES, Samples
from runtime.datasets.shard import Shard, make_shard
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


def make_shards(job: Job, own: OwnSamples) -> dict[str, Shard]:
    """Split the samples of each device that takes part as an agent would."""
    excluded = job.settings.devices.exclude
    shards = {
        device: make_shard(device, job.assignment, samples)
        for device, samples in sorted(own.items())
        if device not in excluded
    }
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
        return [
            self._with_data(state, with_labels=with_labels)
            for state in states
            if state.device in self._shards
        ]

    def _with_data(self, state: DeviceState, *, with_labels: bool) -> DeviceState:
        shard = self._shards[state.device]
        counts, labels = None, shard.packed
        are_classes = np.issubdtype(labels.dtype, np.integer) and labels.ndim == 1
        if with_labels and are_classes and self._num_classes <= MOST_CLASSES:
            counts = tuple(np.bincount(shard.y, minlength=self._num_classes).tolist())
        power = self._power(state.device, "")
        return replace(state, num_samples=len(shard.kept), label_counts=counts, power=power)

    @cached_property
    def _num_classes(self) -> int:
        return 1 + max(int(shard.y.max()) for shard in self._shards.values())
