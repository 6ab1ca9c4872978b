"""Round latencies without training: what each method and each grouping takes in drawn states."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_coordinator.experiments.exhaustive import best_round_s
from edge_coordinator.planning.clusters.clustering import (
    default_schedule,
    gibbs_clusters,
    random_clusters,
    sorted_clusters,
)
from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.division.pricing import THOROUGH_EXCHANGES, Pricer
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.form import Method
from edge_coordinator.planning.latency import cluster_latency_s, phase_seconds
from edge_coordinator.planning.planner import plan_round
from edge_coordinator.planning.spectrum import equal_shares
from edge_coordinator.simulation.world import drawn_states
from profiles.device import DeviceState
from profiles.scenario import Scenario
from profiles.units import Counts
from profiles.variation import Spread
from runtime.seeding import Purpose

GROUPINGS = ("planned", "sorted", "random", "random, equal shares")
EXHAUSTIVE = "exhaustive optimum"


@dataclass(frozen=True)
class Setting:
    """Where rounds take place."""

    scenario: Scenario
    workload: Workload
    devices: tuple[str, ...]
    num_clusters: int
    cut: int
    """Of the workload's cost table."""
    seed: int
    chosen: tuple[int, ...]
    """Numbers of the devices that take part, from 0."""

    @property
    def num_devices(self) -> int:
        """How many take part."""
        return len(self.chosen)

    def states(self, round_: int, *, spread: float | None) -> Sequence[DeviceState]:
        """Draw one round's states; with a spread, it replaces the scenario's own."""
        scenario = self.scenario
        if spread is not None:
            scenario = scenario.model_copy(update={"spread": Spread.between_rounds(spread)})
        states = drawn_states(
            scenario,
            self.devices,
            self.workload.cuts,
            seed=self.seed,
            round_=round_,
            elapsed_s=0.0,
        )
        return [states[index] for index in self.chosen]


@dataclass(frozen=True)
class Latency:
    """Seconds of a round over many draws of the states."""

    mean_s: float
    low_s: float
    """5th percentile."""
    high_s: float
    """95th percentile."""

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latency":
        """Summarise."""
        low, high = np.percentile(seconds, [5, 95])
        return cls(float(np.mean(seconds)), float(low), float(high))


def method_latency(setting: Setting, method: Method, *, spread: float, draws: int) -> Latency:
    """Plan rounds of one method in drawn states, and take their seconds."""
    grouping = Grouping(method, num_clusters=setting.num_clusters)
    workload = replace(setting.workload, loss_on_device=method == "fl")
    seconds = []
    for round_ in range(1, draws + 1):
        plan = plan_round(
            setting.states(round_, spread=spread),
            workload,
            grouping=grouping,
            cut=setting.cut if method in {"cpsl", "sl"} else None,
            generator=np.random.default_rng((setting.seed, Purpose.PLAN, round_)),
        )
        assert plan.predicted_s is not None
        seconds.append(plan.predicted_s)
    return Latency.of(seconds)


def grouping_latencies(setting: Setting, *, spread: float | None, draws: int) -> dict[str, Latency]:
    """Take a round's seconds under each way of grouping, in the same drawn states."""
    seconds: dict[str, list[float]] = {name: [] for name in GROUPINGS}
    for round_ in range(1, draws + 1):
        for name, round_s in _groupings_s(setting, round_, spread=spread).items():
            seconds[name].append(round_s)
    return {name: Latency.of(values) for name, values in seconds.items()}


def small_latencies(setting: Setting, *, spread: float, draws: int) -> dict[str, Latency]:
    """As `grouping_latencies`, with the optimum by trying every clustering and every division."""
    seconds: dict[str, list[float]] = {name: [] for name in (*GROUPINGS, EXHAUSTIVE)}
    for round_ in range(1, draws + 1):
        for name, round_s in _groupings_s(setting, round_, spread=spread).items():
            seconds[name].append(round_s)
        pricer = _pricer(setting, round_, spread=spread)
        seconds[EXHAUSTIVE].append(best_round_s(pricer, sizes=_sizes(setting)))
    return {name: Latency.of(values) for name, values in seconds.items()}


def smaller(setting: Setting, *, num_devices: int, num_clusters: int) -> Setting:
    """Keep a few devices, evenly spaced, so that every class has its part."""
    places = np.linspace(0, setting.num_devices, num_devices, endpoint=False).astype(np.int64)
    chosen = tuple(setting.chosen[place] for place in places.tolist())
    return replace(setting, chosen=chosen, num_clusters=num_clusters)


def _groupings_s(setting: Setting, round_: int, *, spread: float | None) -> dict[str, float]:
    pricer, sizes = _pricer(setting, round_, spread=spread), _sizes(setting)
    generator = np.random.default_rng((setting.seed, Purpose.PLAN, round_))
    start = sorted_clusters(pricer, sizes=sizes)
    planned = gibbs_clusters(
        pricer,
        start=start,
        schedule=default_schedule(int(sizes.sum()), num_clusters=len(sizes), medium=pricer.medium),
        generator=generator,
    )
    drawn = random_clusters(sizes=sizes, generator=generator)
    equal = equal_shares(present=drawn >= 0, medium=pricer.medium)
    return {
        "planned": _allocated_s(pricer, planned),
        "sorted": _allocated_s(pricer, start),
        "random": _allocated_s(pricer, drawn),
        "random, equal shares": float(
            cluster_latency_s(pricer.seconds, members=drawn, shares=equal).sum()
        ),
    }


def _allocated_s(pricer: Pricer, members: Counts) -> float:
    return float(pricer.latency_s(members, max_exchanges=THOROUGH_EXCHANGES).sum())


def _pricer(setting: Setting, round_: int, *, spread: float | None) -> Pricer:
    fleet = Fleet.of(setting.states(round_, spread=spread))
    seconds = phase_seconds(fleet, setting.workload, cut=setting.cut)
    return Pricer(seconds, setting.workload.medium, label_mix=None, balance_weight=0.0)


def _sizes(setting: Setting) -> Counts:
    return Grouping("cpsl", num_clusters=setting.num_clusters).sizes(setting.num_devices)
