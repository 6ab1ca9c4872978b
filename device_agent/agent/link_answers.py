"""Answering the coordinator's wish to have the link measured: once, whatever is repeated."""

from device_agent.agent.hosting import Hosting
from device_agent.agent.publisher import Publisher, link_profile_of
from device_agent.profiling.link import LinkProbe
from runtime.protocol.link_probe import LinkProbeError
from runtime.wire.commands import LinkMeasured, MeasureLink

SHARED_FOR_S = 30.0
"""So long a link's measurement holds for the other devices of the process."""


class LinkProbing:
    """Measures, publishes what came of it, and keeps the answer for repeats."""

    def __init__(self, probe: LinkProbe, publisher: Publisher, hosting: Hosting) -> None:
        self.probe = probe
        self._publisher = publisher
        self._shared = hosting.findings
        self._key = ("link", hosting.link_class)
        self._answer: LinkMeasured | None = None

    async def measure(self, request: MeasureLink) -> None:
        """Measure, unless that is done; then answer."""
        if self._answer is None or self._answer.probe != request.probe:
            self._answer = await self._measured(request)
        await self._publisher.reply(self._answer)

    async def _measured(self, request: MeasureLink) -> LinkMeasured:
        try:
            figures, acknowledge_s = await self._shared.once(
                self._key, lambda: self.probe.measure(request), max_age_s=SHARED_FOR_S
            )
        except LinkProbeError as error:
            at_best = link_profile_of(error.at_best) if error.at_best else None
            return LinkMeasured(probe=request.probe, link=None, reason=str(error), at_best=at_best)
        profile = self._publisher.profile
        profile.link = profile.link.after_probe(figures, acknowledge_s=acknowledge_s)
        await profile.publish()
        return LinkMeasured(probe=request.probe, link=profile.link_profile())
