"""Where each device is in a round, from the plan and what the devices have reported so far.

Clusters take turns in the order of the plan, and each device reports what its turn cost it: so
the reports tell whose turn it is.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet

from edge_coordinator.monitor.state import Activity
from runtime.wire.published import DeviceMetrics, PlanReport, RoundReport


def activities(
    *,
    plan: PlanReport | None,
    round_: RoundReport | None,
    metrics: Mapping[str, DeviceMetrics | None],
    absent: Collection[str],
    plan_is_fresh: bool,
) -> dict[str, Activity]:
    """Tell what each device of a plan does.

    `plan` is None if nobody works by it; `absent` are devices nobody waits for. With
    `plan_is_fresh` every report of the round was seen.
    """
    if plan is None:
        return {}
    clusters = [cluster.devices for cluster in plan.clusters]
    if round_ is not None and round_.run == plan.run and round_.round >= plan.round:
        return {device: Activity.IDLE for cluster in clusters for device in cluster}
    done = {device for device, report in metrics.items() if _belongs(report, plan)}
    turn = _turn(clusters, done, absent)
    if turn == 0 and not plan_is_fresh and not done:
        return {device: Activity.UNKNOWN for cluster in clusters for device in cluster}
    return {
        device: _activity(index, turn, is_done=device in done)
        for index, cluster in enumerate(clusters)
        for device in cluster
    }


def _belongs(report: DeviceMetrics | None, plan: PlanReport) -> bool:
    return report is not None and (report.run, report.round) == (plan.run, plan.round)


def _turn(clusters: list[tuple[str, ...]], done: AbstractSet[str], absent: Collection[str]) -> int:
    """Return the index of the cluster whose turn it is; past the last, if all had theirs."""
    latest = max(
        (index for index, cluster in enumerate(clusters) if not done.isdisjoint(cluster)),
        default=-1,
    )
    if latest >= 0 and any(d not in done and d not in absent for d in clusters[latest]):
        return latest
    return latest + 1


def _activity(index: int, turn: int, *, is_done: bool) -> Activity:
    if is_done or index < turn:
        return Activity.DONE
    return Activity.TRAINS if index == turn else Activity.WAITS
