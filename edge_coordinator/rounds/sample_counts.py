"""What the devices' numbers of samples count as when their models are averaged."""

import logging

from edge_coordinator.devices.registry import Registry
from edge_coordinator.planning.plan import Plan
from edge_coordinator.training.averaging import believed_counts, doubts

log = logging.getLogger(__name__)


class SampleCounts:
    """The |D_k| of a round, as far as they are believed."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._doubted: set[str] = set()
        """Whose number of samples is not believed."""

    def believed(self, plan: Plan) -> dict[str, int]:
        """What the number of samples of each device counts as; those who claim too much are told.

        Every device that is ready has a say, also one that is not in the round.
        """
        claimed = {device: ready.num_samples for device, ready in self._registry.ready.items()}
        claimed |= plan.counts
        believed = believed_counts(claimed)
        for device, why in doubts(claimed, believed).items():
            if device not in self._doubted:
                self._doubted.add(device)
                log.warning("%s", why)
        return believed
