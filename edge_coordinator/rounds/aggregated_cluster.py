"""A cluster reached over the bus whose first samples are given one gradient for all.

It is published once, on the cluster's topic, and the broker multiplies it. What is left of each
device's gradient goes to it alone, as the second frame of the same request: so what a device lacks
of either is asked about and sent again as ever, to it alone.
"""

import time
from collections.abc import Mapping

from edge_coordinator.rounds.remote_cluster import RemoteCluster
from runtime.wire.codecs.turn import together
from runtime.wire.frames import Frame, FrameKind, Tensor


class AggregatedCluster(RemoteCluster):
    """One cluster's turn, as `algorithm.Cluster` has it."""

    async def backward(self, gradients: Mapping[str, Tensor], aggregated: Tensor | None) -> None:
        """Return to all what is aggregated, and to each device the rest of its gradient."""
        if aggregated is None:  # Nothing learns on the devices.
            return await super().backward(gradients, None)
        self._asked_at_s = time.monotonic()
        step, everyone = self._step(self._epoch), together(self._members)
        of_all = {everyone: self._scaled(aggregated)}
        rest = {d: self._scaled(gradients[d]) for d in self._members if len(gradients[d])}
        encoded = await self._encoded(FrameKind.GRADIENT, of_all)
        own = await self._encoded(FrameKind.GRADIENT, rest, part=1)
        for_all = Frame(FrameKind.GRADIENT, step, encoded[everyone])
        frames = {d: Frame(FrameKind.GRADIENT, step.part(1), own[d]) for d in rest}
        own_of = {d: [frames[d]] if d in frames else [] for d in self._members}
        self._expect_next({device: [for_all, *more] for device, more in own_of.items()})
        # One after the other: the seconds of two frames that come at once would count twice.
        await self._channel.publish(self._members, for_all)
        await self._send_each(frames)
        return None
