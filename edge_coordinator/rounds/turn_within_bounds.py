"""One cluster's turn as its plan has it: whole mini-batches or parts, within bounds or not."""

from edge_coordinator.job.job import Job
from edge_coordinator.rounds.bounded_overlap import (
    BoundedAccumulatingEdge,
    BoundedOverlappedCluster,
)
from edge_coordinator.rounds.bounded_turn import BoundedCluster, BoundedEdge, TurnBounds
from edge_coordinator.rounds.overlapped_cluster import OverlappedCluster
from edge_coordinator.rounds.remote_cluster import RemoteCluster
from edge_coordinator.rounds.server_thread import OffLoopEdge
from edge_coordinator.training.algorithm import Cluster, Edge, train_cluster, train_locally
from edge_coordinator.training.overlapped_turn import train_overlapped


async def train_turn(
    job: Job, cluster: RemoteCluster, edge: OffLoopEdge, bounds: TurnBounds | None
) -> list[float]:
    """Train; the losses. `bounds` of what devices send; none if whatever they send is taken."""
    if isinstance(cluster, OverlappedCluster):
        return await _overlapped(job, cluster, edge, bounds)
    own: Cluster = cluster if bounds is None else BoundedCluster(cluster, bounds)
    its: Edge = edge if bounds is None else BoundedEdge(edge, bounds)
    if job.loss_on_device:
        return await train_locally(own, its)
    return await train_cluster(own, its, local_epochs=job.local_epochs)


async def _overlapped(
    job: Job, cluster: OverlappedCluster, edge: OffLoopEdge, bounds: TurnBounds | None
) -> list[float]:
    try:
        if bounds is None:
            return await train_overlapped(cluster, edge, local_epochs=job.local_epochs)
        return await train_overlapped(
            BoundedOverlappedCluster(cluster, bounds),
            BoundedAccumulatingEdge(edge, bounds),
            local_epochs=job.local_epochs,
        )
    finally:
        await cluster.close()
