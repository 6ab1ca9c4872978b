"""Rounds for which there is no plan: trained as in the round before, or dealt out by hand."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from edge_coordinator.planning.plan import ClusterPlan, Plan, plan_by_hand


def as_before(last: Plan, devices: Collection[str], *, reason: str) -> Plan | None:
    """Restrict the last plan to the devices that are there; None if it does not know of all."""
    known = {device for cluster in last.clusters for device in cluster.devices}
    present = set(devices) - set(last.left_out)
    if not present or not present <= known:
        return None
    left = [_of_those(cluster, present) for cluster in last.clusters]
    clusters = tuple(cluster for cluster in left if cluster.devices)
    left_out = {device: why for device, why in last.left_out.items() if device in devices}
    return Plan(last.cut, clusters, left_out, reason)


def dealt(devices: Sequence[str], *, cut: int, num_clusters: int, reason: str) -> Plan:
    """Deal the devices into clusters of neighbours."""
    count = min(num_clusters, len(devices))
    return replace(plan_by_hand(devices, cut=cut, num_clusters=count), reason=reason)


def unpredicted(plan: Plan) -> Plan:
    """Take all seconds out of a plan; what is left is what the round does."""
    clusters = tuple(
        ClusterPlan(
            cluster.devices,
            cluster.shares,
            micro_batches=cluster.micro_batches,
            phi=cluster.phi,
            batch_sizes=cluster.batch_sizes,
            cuts=cluster.cuts,
            num_samples=cluster.num_samples,
        )
        for cluster in plan.clusters
    )
    return Plan(plan.cut, clusters, plan.left_out, plan.reason)


def _of_those(cluster: ClusterPlan, present: Collection[str]) -> ClusterPlan:
    """Restrict a cluster to devices that are there; these keep the sizes of their mini-batches."""
    sizes, cuts = cluster.batch_sizes, cluster.cuts
    kept = [place for place, device in enumerate(cluster.devices) if device in present]
    return ClusterPlan(
        tuple(cluster.devices[place] for place in kept),
        (1.0,) * len(kept),
        micro_batches=cluster.micro_batches,
        phi=cluster.phi,
        batch_sizes=tuple(sizes[place] for place in kept) if sizes else (),
        cuts=tuple(cuts[place] for place in kept) if cuts else (),
    )
