"""How clusters are formed and a cut is chosen: by name, or by code of the user's own.

Apart from the planner, and without numpy, so that settings are read without it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    import numpy as np

    from edge_coordinator.planning.plan import CutPrice
    from profiles.cuts import CutTable
    from profiles.device import DeviceState

Form = Literal["planned", "sorted", "random", "by_id"]
"""How devices come together: sampled for a short round, by finish time, at random, neighbours."""

BatchSizes = Literal["equal", "by_speed", "by_data", "auto"]
"""How a cluster's samples are shared out: B to each device, or B times their number among them by
how fast they are or by how much data they have; auto: by speed where that shortens the round."""

Method = Literal["cpsl", "sl", "fl", "cl"]
"""Cluster-based, vanilla split, federated and central learning."""


class StrategyError(ValueError):
    """What code of the user's own gave is no plan; or it raised."""


@dataclass(frozen=True)
class GroupingTask:
    """Who is to be grouped, and what is known of them."""

    devices: Sequence[DeviceState]
    """All that take part in the round, in id order."""
    sizes: Sequence[int]
    """Of the clusters that the job asks for; others may be formed."""
    cut_layer: str
    """The last layer on the devices."""
    seconds_of: Callable[[Sequence[str]], float]
    """Predicted seconds of the turn of a cluster of these devices, the link divided among them."""
    generator: np.random.Generator
    """Seeded by the job and the round: what is drawn from it is drawn again in a rerun."""


class GroupDevices(Protocol):
    """Says who trains with whom, once a round. It must depend on nothing but what it is told."""

    def __call__(self, task: GroupingTask, /) -> Iterable[Collection[str]]:
        """Give the device ids of each cluster: every device in one of them, and in no other."""
        ...


@dataclass(frozen=True)
class CutTask:
    """Where the network may be cut, and for whom."""

    devices: Sequence[DeviceState]
    """All that could take part, as they are now, in id order."""
    prices: Sequence[CutPrice]
    """Expected seconds of a round at each cut, or why it cannot be; in the order of the layers."""
    cuts: CutTable
    """FLOPs, bits and bytes of each layer and at each cut."""


class ChooseCut(Protocol):
    """Chooses the cut whenever the job has it chosen. It must depend on nothing else."""

    def __call__(self, task: CutTask, /) -> int | str:
        """Give how many layers the devices run, or the name of the last of them."""
        ...


@dataclass(frozen=True)
class OwnGrouping:
    """A grouping of the user's own; StrategyError for what it gives if that is none."""

    name: str
    function: GroupDevices

    def __call__(self, task: GroupingTask) -> list[tuple[str, ...]]:
        """Give the ids of each cluster, in order."""
        try:
            clusters = [tuple(sorted(map(str, cluster))) for cluster in self.function(task)]
        except (Exception, SystemExit) as error:
            raise _raised("plan.grouping", self.name, error) from error
        count = Counter(device for cluster in clusters for device in cluster)
        there = [state.device for state in task.devices]
        faults = [
            *(f"left out {device}" for device in there if device not in count),
            *(f"named {device}, which is not there" for device in count if device not in there),
            *(
                f"put {device} into clusters {times} times"
                for device, times in count.items()
                if times > 1
            ),
            *("gave a cluster of nobody" for cluster in clusters if not cluster),
        ]
        if faults:
            raise StrategyError(
                f"plan.grouping = {self.name} {faults[0]}; it has to give lists of device ids, "
                "each id in one of them"
            )
        return sorted(clusters)


@dataclass(frozen=True)
class OwnCut:
    """A choice of the cut by code of the user's own; StrategyError for what is no cut."""

    name: str
    function: ChooseCut

    def __call__(self, task: CutTask) -> int:
        """Give how many layers the devices run."""
        try:
            chosen = self.function(task)
        except (Exception, SystemExit) as error:
            raise _raised("plan.cut", self.name, error) from error
        found = [each for each in task.prices if chosen in (each.cut, each.name)]
        if isinstance(chosen, bool) or not found:
            names = ", ".join(each.name for each in task.prices)
            raise StrategyError(
                f"plan.cut = {self.name} gave {chosen!r:.60}; it has to give one of {names}, or "
                "how many layers that is"
            )
        if found[0].infeasible:
            raise StrategyError(
                f"plan.cut = {self.name} gave {found[0].name}: {found[0].infeasible}"
            )
        return found[0].cut


@dataclass(frozen=True)
class OwnPlanning:
    """What of a job's plans is code of the user's own."""

    grouping: OwnGrouping | None = None
    cut: OwnCut | None = None


NOTHING_OWN = OwnPlanning()


def named_form(grouping: str) -> Form:
    """Give the form of this name; code of one's own stands for the planned one."""
    return next((form for form in get_args(Form) if form == grouping), "planned")


def _raised(key: str, name: str, error: BaseException) -> StrategyError:
    reason = str(error).partition("\n")[0]
    said = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return StrategyError(f"{key} = {name} raised {said}")
