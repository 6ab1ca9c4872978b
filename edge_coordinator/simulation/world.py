"""The devices of a simulation: their data, and what each computes and carries in each round."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edge_coordinator.job import Job
from edge_coordinator.local_agents import device_names
from profiles.cuts import CutTable
from profiles.device import DeviceState
from profiles.scenario import Scenario
from profiles.variation import between_devices, between_rounds
from runtime.datasets.partition import partition
from runtime.datasets.samples import Samples
from runtime.datasets.shard import Shard, make_shard
from runtime.seeding import Purpose

OwnSamples = Mapping[str, Samples]
"""Device id to its own data."""


def deal_samples(job: Job, train: Samples) -> OwnSamples:
    """Share the training samples out as local mode does."""
    settings = job.settings
    names = device_names(settings.devices.count)
    parts = partition(
        train.y, settings.data.partition, num_devices=len(names), seed=settings.seed
    )
    return {
        device: train.take(part)
        for device, part in zip(names, parts, strict=True)
        if device not in settings.devices.exclude
    }


def make_shards(job: Job, own: OwnSamples) -> dict[str, Shard]:
    """Split each device's samples as an agent would."""
    return {
        device: make_shard(device, job.assignment, samples.x, samples.y)
        for device, samples in sorted(own.items())
    }


class World:
    """What the devices of a scenario are at each moment; equal seeds give equal worlds."""

    def __init__(
        self, scenario: Scenario, shards: Mapping[str, Shard], cuts: CutTable, *, seed: int
    ) -> None:
        self._scenario = scenario
        self._devices = tuple(shards)
        self._shards = shards
        self._cuts = cuts
        self._seed = seed
        self._lasting = between_devices(
            scenario.spread,
            count=len(self._devices),
            generator=np.random.default_rng((seed, Purpose.SPREAD)),
        )

    def states(
        self, round_: int, *, elapsed_s: float, with_labels: bool = False
    ) -> Sequence[DeviceState]:
        """Draw the states of all devices in a round that begins at this moment."""
        factors = self._lasting * between_rounds(
            self._scenario.spread,
            count=len(self._devices),
            generator=np.random.default_rng((self._seed, Purpose.STATES, round_)),
        )
        states = self._scenario.device_states(
            self._devices, cuts=self._cuts, factors=factors, elapsed_s=elapsed_s
        )
        return [self._with_data(state, with_labels=with_labels) for state in states]

    def _with_data(self, state: DeviceState, *, with_labels: bool) -> DeviceState:
        shard = self._shards[state.device]
        counts = None
        if with_labels and np.issubdtype(shard.y.dtype, np.integer) and shard.y.ndim == 1:
            counts = tuple(np.bincount(shard.y, minlength=self._num_classes()).tolist())
        return replace(state, num_samples=len(shard.x), label_counts=counts)

    def _num_classes(self) -> int:
        return 1 + max(int(shard.y.max()) for shard in self._shards.values())
