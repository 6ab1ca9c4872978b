"""Having a device measure its link: how much that may cost, and what if it fails."""

import logging
import secrets
from math import prod

from edge_coordinator.conversation import Conversation
from edge_coordinator.inquiry import DeviceGoneError
from edge_coordinator.job import Job
from edge_coordinator.link_echo import probe_budget_bytes
from runtime.messages import LinkMeasured, MeasureLink
from runtime.protocol.link_probe import MAX_PROBE_S

log = logging.getLogger(__name__)


class LinkSurvey:
    """Has devices measure their links, one at a time, within a part of what a round moves."""

    def __init__(self, job: Job, conversation: Conversation) -> None:
        self._job = job
        self._conversation = conversation

    async def measure(self, device: str) -> None:
        """Have a device measure its link; its profile says what came of it."""
        request = MeasureLink(
            probe=secrets.randbits(64), budget_bytes=self._budget_bytes(), budget_s=MAX_PROBE_S
        )
        try:
            reply = await self._conversation.measure_link(device, request)
        except DeviceGoneError as error:
            log.warning("the link of %s could not be measured: %s", device, error)
            reply = LinkMeasured(probe=request.probe, link=None, reason=str(error))
        else:
            if reply.link is None:
                log.warning("%s could not measure its link: %s", device, reply.reason)
        self._conversation.registry.note_link(device, reply)

    def _budget_bytes(self) -> int:
        """Take a planned cut to be one of middling smashed data."""
        inner = sorted(self._job.shapes[1:-1] or self._job.shapes, key=prod)
        cut = self._job.cut
        shape = inner[len(inner) // 2] if cut is None else self._job.smashed_shape(cut)
        return probe_budget_bytes(
            batch_size=self._job.settings.training.batch_size,
            local_epochs=self._job.local_epochs,
            smashed_shape=shape,
            num_devices=self._job.settings.devices.count,
        )
