"""What planning buys as devices differ more: round latency against the spread of their states."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb

from edge_coordinator.experiments.latencies import (
    Latency,
    Setting,
    grouping_latencies,
    small_latencies,
    smaller,
)
from profiles.link import IndependentLinks, Medium, SharedLink, Subcarriers

SPREADS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.8)
"""Relative deviations of every device's speed and rates."""
SMALL_DEVICES, SMALL_CLUSTERS = 8, 2
"""Few enough to try every clustering and every division of the subcarriers."""
MOST_DIVISIONS = 50_000
"""Of the subcarriers in a cluster; each is tried for each of 70 clusters in every draw."""


@dataclass(frozen=True)
class GroupingStudy:
    """Mean seconds of a round, [grouping][spread]."""

    title: str
    latencies: Mapping[str, Sequence[Latency]]

    @property
    def means_s(self) -> dict[str, list[float]]:
        """The means alone."""
        return {name: [each.mean_s for each in row] for name, row in self.latencies.items()}


@dataclass(frozen=True)
class GroupingStudies:
    """All devices, and few of them beside the optimum; each where there are enough for it."""

    studies: Sequence[GroupingStudy]
    optimum: str
    """How the optimum was found, or why there is none: a sentence."""


def study_groupings(
    setting: Setting, *, draws: int, on_step: Callable[[], None]
) -> GroupingStudies:
    """Group all devices, and then few of them beside the optimum.

    Each mean is over so many draws of the states. `on_step` is told of every spread that is done;
    there are `num_steps` of them. InfeasiblePlanError if a cluster has more devices than the link
    has subcarriers.
    """
    studies = []
    if setting.num_devices > SMALL_DEVICES and setting.num_clusters > 1:
        studies.append(_study(setting, grouping_latencies, draws=draws, on_step=on_step))
    few = min(setting.num_devices, SMALL_DEVICES)
    if why := why_no_optimum(setting.workload.medium, num_devices=few):
        return GroupingStudies(studies, f"There is no exhaustive optimum to compare with: {why}.")
    small = smaller(setting, num_devices=few, num_clusters=SMALL_CLUSTERS)
    studies.append(_study(small, small_latencies, draws=draws, on_step=on_step))
    return GroupingStudies(studies, how_optimal(setting.workload.medium))


def why_no_optimum(medium: Medium, *, num_devices: int) -> str:
    """Say why so few devices cannot be grouped in every way there is; nothing if they can."""
    if num_devices < 2 * SMALL_CLUSTERS:
        return f"{num_devices} devices are too few for {SMALL_CLUSTERS} clusters that differ"
    if not isinstance(medium, Subcarriers):
        return ""
    most, available = -(-num_devices // SMALL_CLUSTERS), medium.num_subcarriers
    if most > available:
        return (
            f"{num_devices} devices in {SMALL_CLUSTERS} clusters are {most} in a cluster, and "
            f"there are {available} subcarriers"
        )
    divisions = comb(available - 1, most - 1)
    if divisions > MOST_DIVISIONS:
        return (
            f"{most} devices can divide {available} subcarriers in {divisions:,} ways, and up to "
            f"{MOST_DIVISIONS:,} are tried"
        )
    return ""


def how_optimal(medium: Medium) -> str:
    """Say what the optimum is the best of."""
    match medium:
        case Subcarriers():
            how = "every clustering and every division of the subcarriers"
        case IndependentLinks():
            how = "every clustering; every device has a line of its own, so nothing is divided"
        case SharedLink():
            how = "every clustering; the planner divides the link, as for the other groupings"
    return f"`exhaustive optimum` tries {how}."


def num_steps() -> int:
    """At most so many steps a study takes."""
    return 2 * len(SPREADS)


def _study(
    setting: Setting,
    latencies: Callable[..., Mapping[str, Latency]],
    *,
    draws: int,
    on_step: Callable[[], None],
) -> GroupingStudy:
    rows = []
    for spread in SPREADS:
        rows.append(latencies(setting, spread=spread, draws=draws))
        on_step()
    cut = setting.workload.cuts.cut_names[setting.cut]
    title = f"{setting.num_devices} devices, {setting.num_clusters} clusters, cut after {cut}"
    return GroupingStudy(title, {name: [row[name] for row in rows] for name in rows[0]})
