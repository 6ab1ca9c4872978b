"""A plan of one round: who trains with whom, where the network is cut, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from profiles.phases import SecondsByPhase
from runtime.wire.codecs.names import TurnCodecs


class InfeasiblePlanError(ValueError):
    """No plan can satisfy what was asked for; the message carries the numbers."""


class StepFlow(NamedTuple):
    """How the mini-batches of a cluster travel in a local epoch."""

    micro_batches: int
    """Parts of each mini-batch."""
    phi: float
    """Share of each mini-batch whose gradients are aggregated."""


@dataclass(frozen=True)
class ClusterPlan:
    """The devices that train in parallel, in id order, and each one's share of the link."""

    devices: tuple[str, ...]
    shares: tuple[float, ...]
    """Fraction of its measured rate (independent links) or of the common rate (a shared link)
    that each device may use, in the order of `devices`."""
    predicted_s: float | None = None
    """Seconds from the distribution of the device-side model to the last upload of it."""
    phases: tuple[SecondsByPhase, ...] = ()
    """What `predicted_s` is made of, in the order of `devices`: a cluster waits for the slowest,
    and for the sum of the server's seconds."""
    micro_batches: int = 1
    """How many micro-batches each mini-batch goes in."""
    overhead_s: float = 0.0
    """Of `predicted_s`, what was learned of turns beyond their phases."""
    whole_batches_s: float | None = None
    """What the same would take with whole mini-batches, where it goes in micro-batches."""
    phi: float | None = None
    """Share of each mini-batch whose gradients are aggregated, if the plan chose it; else as the
    job says."""
    plain_s: float | None = None
    """What the same would take with none aggregated, where the plan chose to aggregate."""
    batch_sizes: tuple[int, ...] = ()
    """Samples of each device's mini-batch, in the order of `devices`, where they were shared out;
    else all have the job's."""
    cuts: tuple[int, ...] = ()
    """Layers on each device, in the order of `devices`, where these are given one by one; else all
    have the plan's."""
    num_samples: tuple[int, ...] = ()
    """That each device trains on, in the order of `devices`, where some device's of the cluster
    grow; 0 for those whose do not."""

    @property
    def counts(self) -> dict[str, int]:
        """Device id to how many samples it trains on, of those whose data grow."""
        counts = zip(self.devices, self.num_samples, strict=False)
        return {device: count for device, count in counts if count}


@dataclass(frozen=True)
class CutPrice:
    """What a cut is expected to cost."""

    cut: int
    name: str
    """The last layer on the device."""
    expected_s: float | None
    """Seconds of a round, averaged over the sampled states; None if the cut is infeasible."""
    infeasible: str = ""
    """Why the cut cannot be used."""
    energy_s: float = 0.0
    """Seconds that its joules count as, where they are weighed."""

    @property
    def cost_s(self) -> float:
        """What it counts as beside other cuts that can be used."""
        return (self.expected_s or 0.0) + self.energy_s


@dataclass(frozen=True)
class Alternatives:
    """What the round would have cost otherwise, by the same latency model."""

    sorted_clusters_s: float
    """Devices grouped with those of like finish time, shares allocated."""
    random_clusters_s: float
    """Devices grouped at random (the mean of several draws), shares allocated."""
    random_equal_shares_s: float
    """The same groups, the link divided evenly."""
    cuts: tuple[CutPrice, ...] = ()
    """Every cut that was considered, the chosen one included; empty if the cut was given."""
    next_best_cut: CutPrice | None = None


@dataclass(frozen=True)
class Plan:
    """Clusters in the order of their turns, the cut, and why."""

    cut: int
    """Number of layers on the device; 0 is none, `num_layers` is the whole network. Where devices
    cut at different layers: that of all that have none of their own."""
    clusters: tuple[ClusterPlan, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Device id to the reason why it does not take part."""
    reason: str = ""
    """One sentence on where the cut and the clusters come from."""
    predicted_s: float | None = None
    """Seconds of the whole round: the sum over its clusters."""
    lower_bound_s: float | None = None
    """Seconds that no clusters of these sizes, and no shares, beat at this cut."""
    alternatives: Alternatives | None = None
    joules: Mapping[str, float] = field(default_factory=dict)
    """Device id to what it draws in the round, where its watts are known."""
    codecs: TurnCodecs | None = None
    """How tensors travel, if the plan chose it; else as the job says."""

    def cut_at(self, own: Mapping[str, int]) -> "Plan":
        """Have devices cut where they do on their own, and all others at the plan's cut."""

        def cuts_in(cluster: ClusterPlan) -> tuple[int, ...]:
            cuts = tuple(own.get(device, self.cut) for device in cluster.devices)
            return cuts if set(cuts) - {self.cut} else ()

        clusters = tuple(replace(each, cuts=cuts_in(each)) for each in self.clusters)
        return replace(self, clusters=clusters)

    def with_samples(self, counts: Mapping[str, int]) -> "Plan":
        """Say how many samples devices train on, of those whose data grow."""
        if not counts:
            return self

        def counts_in(cluster: ClusterPlan) -> tuple[int, ...]:
            found = tuple(counts.get(device, 0) for device in cluster.devices)
            return found if any(found) else ()

        clusters = tuple(replace(each, num_samples=counts_in(each)) for each in self.clusters)
        return replace(self, clusters=clusters)

    @property
    def counts(self) -> dict[str, int]:
        """Device id to how many samples it trains on, of those whose data grow."""
        return {device: n for each in self.clusters for device, n in each.counts.items()}

    def cuts_of(self, cluster: ClusterPlan) -> dict[str, int]:
        """Device id to the number of layers on it, of a cluster's devices."""
        cuts = cluster.cuts or (self.cut,) * len(cluster.devices)
        return dict(zip(cluster.devices, cuts, strict=True))

    @property
    def cuts(self) -> dict[str, int]:
        """Device id to the number of layers on it."""
        return {d: cut for each in self.clusters for d, cut in self.cuts_of(each).items()}

    @property
    def own_cuts(self) -> dict[str, int]:
        """Device id to the number of layers on it, of those that cut at another than the plan's."""
        return {device: cut for device, cut in self.cuts.items() if cut != self.cut}

    @property
    def batch_shares(self) -> Mapping[str, float]:
        """How large mini-batches are beside equal ones, by device, where they were shared out."""
        return {
            device: size * len(each.batch_sizes) / sum(each.batch_sizes)
            for each in self.clusters
            for device, size in zip(each.devices, each.batch_sizes, strict=False)
        }


def plan_by_hand(
    devices: Sequence[str], *, cut: int, num_clusters: int, micro_batches: int = 1
) -> Plan:
    """Deal the devices, in id order, into clusters whose sizes differ by at most one."""
    if num_clusters > len(devices):
        raise InfeasiblePlanError(f"{num_clusters} clusters are more than {len(devices)} devices")
    ordered = sorted(devices)
    size, extra = divmod(len(ordered), num_clusters)
    clusters, start = [], 0
    for index in range(num_clusters):
        end = start + size + (index < extra)
        members = tuple(ordered[start:end])
        shares = (1.0,) * len(members)
        clusters.append(ClusterPlan(members, shares, micro_batches=micro_batches))
        start = end
    return Plan(cut, tuple(clusters), reason="cut and clusters were given by hand")


def clusters_of_size(num_devices: int, cluster_size: int) -> int:
    """How many clusters of about this size there are; at least one."""
    return max(1, round(num_devices / cluster_size))
