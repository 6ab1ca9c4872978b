"""The turns of a round as clusters that can be reached: who is asked for what."""

from collections.abc import Mapping, Sequence

from edge_coordinator.cluster import Member, RemoteCluster
from edge_coordinator.conversation import Conversation
from edge_coordinator.graph_exports import GraphExports
from edge_coordinator.job import Job
from edge_coordinator.planner import PlannedRound
from edge_coordinator.planning.deadline import Answer, predicted_answers
from edge_coordinator.planning.plan import ClusterPlan
from runtime.wire.commands import Join, Ready

EVALUATION_CLUSTER = 0xFFFF
"""The cluster number of a round's evaluation on the devices, after all that train."""


class Turns:
    """Makes the remote clusters of a run."""

    def __init__(self, job: Job, conversation: Conversation, exports: GraphExports) -> None:
        self._job = job
        self._conversation = conversation
        self._registry = conversation.registry
        self._exports = exports

    def training(self, round_: int, cluster: ClusterPlan, planned: PlannedRound) -> RemoteCluster:
        """Have the devices of a cluster train together."""
        join = Join(
            run=self._conversation.run,
            round=round_,
            cluster=self._conversation.next_turn(round_),
            purpose="train_locally" if self._job.is_local else "train",
            cut=planned.plan.cut,
            local_epochs=self._job.local_epochs,
            learning_rate=self._job.device_rate(round_, len(cluster.devices)),
        )
        predicted_s = {
            device: predicted_answers(phases, local_epochs=self._job.local_epochs)
            for device, phases in zip(cluster.devices, cluster.phases, strict=False)
        }
        members = [self._member(device, predicted_s.get(device, {})) for device in cluster.devices]
        quorum = 1.0 if planned.is_exact else self._job.settings.devices.cluster_quorum
        return self._remote(join, members, up_share_bps=planned.up_share_bps, quorum=quorum)

    def evaluation(self, round_: int, devices: Sequence[str], *, cut: int) -> RemoteCluster:
        """Have devices evaluate on what they hold out."""
        join = Join(
            run=self._conversation.run,
            round=round_,
            cluster=EVALUATION_CLUSTER,
            purpose="evaluate",
            cut=cut,
            local_epochs=1,
            learning_rate=0.0,
        )
        members = []
        for device in devices:
            ready = self._ready(device)
            members.append(Member(device, ready, ready.num_held_out))
        return self._remote(join, members, up_share_bps={}, quorum=0.0)

    def _member(self, device: str, predicted_s: Mapping[Answer, float]) -> Member:
        ready = self._ready(device)
        size = min(self._job.settings.training.batch_size, ready.num_samples)
        return Member(device, ready, size, predicted_s)

    def _ready(self, device: str) -> Ready:
        ready = self._registry.records[device].ready
        assert ready is not None
        return ready

    def _remote(
        self,
        join: Join,
        members: Sequence[Member],
        *,
        up_share_bps: Mapping[str, float],
        quorum: float,
    ) -> RemoteCluster:
        return RemoteCluster(
            self._conversation,
            members,
            joins={
                member.device: join.model_copy(
                    update={
                        "graphs": self._exports.offer(member.device, join.cut),
                        "up_share_bps": up_share_bps.get(member.device),
                    }
                )
                for member in members
            },
            smashed_shape=self._job.smashed_shape(join.cut),
            num_classes=self._job.assignment.num_classes,
            quorum=quorum,
            rate_by_size=self._job.steps_by_size,
        )
