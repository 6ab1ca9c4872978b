"""Plans that are given, not found: a cut, and clusters of neighbours in device-id order."""

from collections.abc import Sequence

from edge_coordinator.planning.plan import ClusterPlan, InfeasiblePlanError, Plan


def plan_by_hand(devices: Sequence[str], *, cut: int, num_clusters: int) -> Plan:
    """Deal the devices, in id order, into clusters whose sizes differ by at most one."""
    if num_clusters > len(devices):
        raise InfeasiblePlanError(f"{num_clusters} clusters are more than {len(devices)} devices")
    ordered = sorted(devices)
    size, extra = divmod(len(ordered), num_clusters)
    clusters, start = [], 0
    for index in range(num_clusters):
        end = start + size + (index < extra)
        members = tuple(ordered[start:end])
        clusters.append(ClusterPlan(members, (1.0,) * len(members)))
        start = end
    return Plan(cut, tuple(clusters), reason="cut and clusters were given by hand")


def clusters_of_size(num_devices: int, cluster_size: int) -> int:
    """How many clusters of about this size there are; at least one."""
    return max(1, round(num_devices / cluster_size))
