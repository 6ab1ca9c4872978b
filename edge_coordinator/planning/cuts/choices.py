"""The cuts that each device may have, by its memory, its engine and its owner."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_coordinator.planning.fleet import Fleet, Workload, device_memory_bytes
from edge_coordinator.planning.plan import InfeasiblePlanError
from profiles.device import DeviceState
from profiles.units import Counts


@dataclass(frozen=True)
class Choices:
    """The cuts that each device may have."""

    cuts: Counts
    """[choice]"""
    allowed: NDArray[np.bool_]
    """Whether a device can have a cut, [device, choice]."""

    @classmethod
    def of(
        cls,
        fleet: Fleet,
        workload: Workload,
        candidates: Sequence[int],
        devices: Sequence[DeviceState],
    ) -> "Choices":
        """Work out what the devices' memory, engines and owners allow."""
        usable = [cut for cut in sorted(candidates) if cut not in workload.refused_cuts]
        if not usable:
            raise InfeasiblePlanError("no cut fits: " + "; ".join(workload.refused_cuts.values()))
        cuts = np.array(usable)
        ordered = sorted(devices, key=lambda state: state.device)
        deepest = [np.inf if s.deepest_cut is None else s.deepest_cut for s in ordered]
        shallowest = [state.shallowest_cut for state in ordered]
        needed_bytes = device_memory_bytes(workload)[cuts]
        allowed = needed_bytes <= fleet.free_memory_bytes[:, np.newaxis]
        allowed &= cuts <= np.array(deepest)[:, np.newaxis]
        allowed &= cuts >= np.array(shallowest)[:, np.newaxis]
        allowed |= ~allowed.any(axis=-1, keepdims=True)  # Who can have none is left out.
        return cls(cuts, allowed)

    @property
    def widest(self) -> int:
        """The cut that the most devices can have, the shallowest of several."""
        return int(self.cuts[self.allowed.sum(axis=0).argmax()])

    def nearest(self, cut: int) -> Counts:
        """The cut of each device that is next to one, the deeper of two, [device]."""
        distance = np.abs(self.cuts - cut) - 0.25 * (self.cuts > cut)
        nearest: Counts = self.cuts[np.where(self.allowed, distance, np.inf).argmin(axis=-1)]
        return nearest

    def without(self, cuts: frozenset[int]) -> "Choices":
        """Leave some cuts out, but for devices that can have no other."""
        kept = self.allowed & ~np.isin(self.cuts, list(cuts))
        return replace(self, allowed=np.where(kept.any(axis=-1, keepdims=True), kept, self.allowed))
