"""What planning buys as devices differ more: round latency against the spread of their states."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edge_coordinator.comparison.latencies import (
    Latency,
    Setting,
    grouping_latencies,
    small_latencies,
    smaller,
)

SPREADS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.8)
"""Relative deviations of every device's speed and rates."""
SMALL_DEVICES, SMALL_CLUSTERS = 8, 2
"""Few enough to try every clustering and every division of the subcarriers."""


@dataclass(frozen=True)
class GroupingStudy:
    """Mean seconds of a round, [grouping][spread]."""

    title: str
    latencies: Mapping[str, Sequence[Latency]]

    @property
    def means_s(self) -> dict[str, list[float]]:
        """The means alone."""
        return {name: [each.mean_s for each in row] for name, row in self.latencies.items()}


def study_groupings(
    setting: Setting, *, draws: int, on_step: Callable[[], None]
) -> list[GroupingStudy]:
    """Group all devices, and then few of them beside the optimum; nothing for too few devices.

    Each mean is over so many draws of the states.

    `on_step` is told of every spread that is done; there are `num_steps` of them.
    """
    studies = []
    num_devices, cut = setting.num_devices, setting.workload.cuts.cut_names[setting.cut]
    if num_devices > SMALL_DEVICES and setting.num_clusters > 1:
        rows = []
        for spread in SPREADS:
            rows.append(grouping_latencies(setting, spread=spread, draws=draws))
            on_step()
        title = f"{num_devices} devices, {setting.num_clusters} clusters, cut after {cut}"
        studies.append(GroupingStudy(title, _by_name(rows)))
    few = min(num_devices, SMALL_DEVICES)
    if few >= 2 * SMALL_CLUSTERS:
        small = smaller(setting, num_devices=few, num_clusters=SMALL_CLUSTERS)
        rows = []
        for spread in SPREADS:
            rows.append(small_latencies(small, spread=spread, draws=draws))
            on_step()
        studies.append(
            GroupingStudy(
                f"{few} devices, {SMALL_CLUSTERS} clusters, cut after {cut}", _by_name(rows)
            )
        )
    return studies


def num_steps() -> int:
    """At most so many steps a study takes."""
    return 2 * len(SPREADS)


def _by_name(rows: Sequence[Mapping[str, Latency]]) -> dict[str, list[Latency]]:
    return {name: [row[name] for row in rows] for name in rows[0]}
