"""A plan of one round: who trains with whom, and where the network is cut."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ClusterPlan:
    """The devices that train in parallel, in id order, and each one's share of the link."""

    devices: tuple[str, ...]
    shares: tuple[float, ...]
    """Fraction of its measured rate (independent links) or of the common rate (a shared link)
    that each device may use, in the order of `devices`."""


@dataclass(frozen=True)
class Plan:
    """Clusters in the order of their turns, the cut, and why."""

    cut: int
    """Number of layers on the device; 0 is none, `num_layers` is the whole network."""
    clusters: tuple[ClusterPlan, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Device id to the reason why it does not take part."""
    reason: str = ""
    """One sentence on where the cut and the clusters come from."""
