"""What of the plans is the user's own: by hand, of a run before, or by code that groups or cuts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from edge_coordinator.job.plan_settings import DEFAULT_CLUSTERS
from edge_coordinator.job.settings import JobSettings, device_names
from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.form import (
    NOTHING_OWN,
    OwnCut,
    OwnGrouping,
    OwnPlanning,
    StrategyError,
)
from edge_coordinator.planning.plan import (
    InfeasiblePlanError,
    Plan,
    clusters_of_size,
    plan_by_hand,
)
from edge_coordinator.planning.planner import plan_round
from profiles.cuts import CutTable
from profiles.device import ComputeState, DeviceState
from profiles.link import IndependentLinks, LinkState
from runtime.errors import SettingsError
from runtime.plugins import import_factory

TRIED_DEVICES = 8
"""That are made up, to try code of the user's own on."""


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
    own_cuts: Mapping[str, int]
    """Device id to its cut, of those that have one of their own."""
    micro_batches: int = 1
    is_exact: bool = False

    def plan(self, round_: int, devices: Sequence[str]) -> Plan:  # noqa: ARG002 - all are alike
        """Deal the devices into as many clusters as the job asks for."""
        wanted = num_clusters(self.settings, len(devices))
        plan = plan_by_hand(
            devices,
            cut=self.cut,
            num_clusters=min(wanted, len(devices)),
            micro_batches=self.micro_batches,
        )
        return plan.cut_at(self.own_cuts)

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


def own_planning(
    settings: JobSettings, count_costs: Callable[[], CutTable], *, base_dir: Path
) -> OwnPlanning:
    """Import what groups and what chooses the cut, and try it on devices that are made up.

    SettingsError says what is wrong with it before the first round. `count_costs` counts the
    network's layers, which takes a moment.
    """
    form, cut = settings.plan.grouping, settings.plan.own_cut
    if settings.plan.is_by_hand or settings.plan.replayed or not (":" in form or cut):
        return NOTHING_OWN
    own = OwnPlanning(
        OwnGrouping(form, import_factory(form, base_dir=base_dir)) if ":" in form else None,
        OwnCut(cut, import_factory(cut, base_dir=base_dir)) if cut else None,
    )
    try:
        _try_on_sample(own, settings, count_costs())
    except StrategyError as error:
        raise SettingsError(str(error)) from error
    return own


def _try_on_sample(own: OwnPlanning, settings: JobSettings, cuts: CutTable) -> None:
    """Plan a round of a few devices, each of another speed."""
    count = min(max(settings.devices.count, 2), TRIED_DEVICES)
    speed = {"forward_flop_per_s": 1e9, "backward_flop_per_s": 1e9}
    devices = [
        DeviceState(
            device,
            num_samples=100,
            free_memory_bytes=np.inf,
            compute=ComputeState.of_device(cuts, **{k: v / (i + 1) for k, v in speed.items()}),
            link=LinkState(up_bps=1e7, down_bps=1e7, round_trip_s=0.0, message_s=0.0),
        )
        for i, device in enumerate(device_names(count))
    ]
    workload = Workload(
        cuts,
        batch_size=settings.training.batch_size,
        local_epochs=1,
        label_bits=8.0,
        message_bytes=np.inf,
        server=ComputeState.of_server(cuts, **speed),
        medium=IndependentLinks(),
        loss_on_device=False,
    )
    grouping = Grouping(
        "cpsl",
        num_clusters=min(num_clusters(settings, count), count),
        form=own.grouping or "by_id",
        choose_cut=own.cut,
    )
    generator = np.random.default_rng(0)
    cut = None if own.cut else 1
    plan_round(devices, workload, grouping=grouping, cut=cut, generator=generator)


def check_clusters(settings: JobSettings) -> None:
    """SettingsError for clusters that these devices cannot make."""
    count = settings.devices.count
    try:
        plan_by_hand(
            [str(i) for i in range(count)], cut=0, num_clusters=num_clusters(settings, count)
        )
    except InfeasiblePlanError as error:
        raise SettingsError(f"plan.clusters: {error}") from error
