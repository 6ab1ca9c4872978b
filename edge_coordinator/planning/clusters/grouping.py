"""What the user decides about a round: into what clusters, and how cuts are chosen."""

from dataclasses import dataclass

import numpy as np

from edge_coordinator.planning.form import Form, Method, OwnCut, OwnGrouping
from edge_coordinator.planning.plan import InfeasiblePlanError
from profiles.units import Counts


@dataclass(frozen=True)
class Grouping:
    """What the user decides about clusters: their number or their size, and what counts."""

    method: Method
    num_clusters: int | None = None
    cluster_size: int | None = None
    """The most devices in a cluster; wins over `num_clusters`."""
    balance_weight: float = 0.0
    """How much slower a cluster counts whose labels have nothing in common with the whole."""
    form: Form | OwnGrouping = "planned"
    """Code of one's own groups where there are clusters to choose: in `cpsl`."""
    choose_cut: OwnCut | None = None
    """Instead of the least expected seconds."""
    cuts_by_device: bool = False
    """Choose a cut for each device, beginning with that of all."""
    equal_shares: bool = False
    """Divide a shared link evenly, to compare with."""

    def sizes(self, num_devices: int) -> Counts:
        """Size the clusters: of one device (sl), of all (fl, cl) or as asked for (cpsl)."""
        if self.method == "sl":
            return cluster_sizes(num_devices, cluster_size=1)
        if self.method in {"fl", "cl"}:
            return cluster_sizes(num_devices, num_clusters=1)
        return cluster_sizes(
            num_devices, num_clusters=self.num_clusters, cluster_size=self.cluster_size
        )

    def candidate_cuts(self, num_layers: int) -> range:
        """List the cuts that are the method's: one for fl and cl, all inner ones otherwise."""
        match self.method:
            case "fl":
                return range(num_layers, num_layers + 1)
            case "cl":
                return range(1)
            case _:
                return range(1, num_layers)


def cluster_sizes(
    num_devices: int, *, num_clusters: int | None = None, cluster_size: int | None = None
) -> Counts:
    """Divide devices as evenly as possible, the larger clusters first, [cluster].

    One of the two must be given; `cluster_size` is the most that a cluster may hold.
    """
    if cluster_size is not None:
        num_clusters = -(-num_devices // cluster_size)
    if num_clusters is None:
        raise InfeasiblePlanError("neither the number nor the size of clusters is given")
    num_clusters = min(num_clusters, num_devices)
    smaller, num_larger = divmod(num_devices, num_clusters)
    return np.array(
        [smaller + 1] * num_larger + [smaller] * (num_clusters - num_larger), dtype=np.int64
    )
