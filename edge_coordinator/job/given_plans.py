"""Plans that are given and rest on no measurement: by hand, or those of a run before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_coordinator.job.plan_settings import DEFAULT_CLUSTERS
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.planning.plan import Plan, clusters_of_size, plan_by_hand


class GivenPlans(Protocol):
    """Knows what to do in a round whatever the devices measure of themselves."""

    @property
    def is_exact(self) -> bool:
        """Whether a round counts only if every device of its plan came to the end of it."""
        ...

    def plan(self, round_: int, devices: Sequence[str]) -> Plan:
        """Plan a round for the devices that are there; without clusters if they cannot do it."""
        ...

    def check_devices(self, devices: Sequence[str]) -> None:
        """SettingsError if these, all that there will ever be, cannot do what is planned."""
        ...


@dataclass(frozen=True)
class PlansByHand:
    """A cut, and clusters of neighbours in device-id order, for whoever is there."""

    settings: JobSettings
    cut: int
    micro_batches: int = 1
    is_exact: bool = False

    def plan(self, round_: int, devices: Sequence[str]) -> Plan:  # noqa: ARG002 - all are alike
        """Deal the devices into as many clusters as the job asks for."""
        wanted = num_clusters(self.settings, len(devices))
        return plan_by_hand(
            devices,
            cut=self.cut,
            num_clusters=min(wanted, len(devices)),
            micro_batches=self.micro_batches,
        )

    def check_devices(self, devices: Sequence[str]) -> None:
        """Any will do."""


def num_clusters(settings: JobSettings, num_devices: int) -> int:
    """How many clusters the method and the settings ask for."""
    match settings.training.method:
        case "sl":
            return num_devices
        case "fl" | "cl":
            return 1
    if settings.plan.cluster_size is not None:
        return clusters_of_size(num_devices, settings.plan.cluster_size)
    return settings.plan.clusters or min(DEFAULT_CLUSTERS, num_devices)
