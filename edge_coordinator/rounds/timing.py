"""A cluster's turn, timed: who answered when, and what the server took."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge_coordinator.rounds.remote_cluster import RemoteCluster
from edge_coordinator.rounds.server_thread import OffLoopEdge
from edge_coordinator.training.algorithm import Collected, ServerStep, Smashed
from runtime.wire.frames import Tensor


@dataclass
class TurnTimes:
    """Seconds of one cluster's turn as the coordinator sees them."""

    devices: tuple[str, ...] = ()
    """Those that came to its end."""
    answers_s: dict[str, list[float]] = field(default_factory=dict)
    """From each request to each device's answer: the model, then every gradient."""
    server_s: list[float] = field(default_factory=list)
    """Of each local epoch."""
    turn_s: float = 0.0


class TimedCluster:
    """A remote cluster whose answers are timed; keeps the contract of `algorithm.Cluster`."""

    def __init__(self, cluster: RemoteCluster) -> None:
        self._cluster = cluster
        self._asked_at_s = self._started_at_s = time.monotonic()
        self.times = TurnTimes()

    @property
    def sample_counts(self) -> Mapping[str, int]:
        """|D_k| of each device."""
        return self._cluster.sample_counts

    async def load(self, device_side: Sequence[Tensor]) -> None:
        """Distribute the device-side model."""
        self._asked_at_s = time.monotonic()
        await self._cluster.load(device_side)

    async def forward(self) -> Mapping[str, Smashed]:
        """Smashed data of every device."""
        smashed = await self._cluster.forward()
        self._note_answers()
        return smashed

    async def backward(self, gradients: Mapping[str, Tensor]) -> None:
        """Return to each device its gradient."""
        self._asked_at_s = time.monotonic()
        await self._cluster.backward(gradients)

    async def weights(self) -> Collected:
        """The device-side models after the last local epoch."""
        collected = await self._cluster.weights()
        self._note_answers()
        self.times.devices = tuple(collected.weights)
        return collected

    def finish(self) -> TurnTimes:
        """End the turn; what it took."""
        self.times.turn_s = time.monotonic() - self._started_at_s
        return self.times

    def _note_answers(self) -> None:
        for device, at_s in self._cluster.answered_at_s.items():
            self.times.answers_s.setdefault(device, []).append(at_s - self._asked_at_s)


class TimedEdge:
    """The server's side of a turn, timed; keeps the contract of `algorithm.Edge`."""

    def __init__(self, edge: OffLoopEdge, times: TurnTimes) -> None:
        self._edge = edge
        self._times = times

    async def device_side(self) -> Sequence[Tensor]:
        """The device-side model."""
        return await self._edge.device_side()

    async def step(self, smashed: Mapping[str, Smashed]) -> ServerStep:
        """Forward, loss, backward, update of the server-side model."""
        start_s = time.monotonic()
        step = await self._edge.step(smashed)
        self._times.server_s.append(time.monotonic() - start_s)
        return step

    async def aggregate(
        self, weights: Mapping[str, Sequence[Tensor]], sample_counts: Mapping[str, int]
    ) -> None:
        """Take over what becomes of the devices' models."""
        await self._edge.aggregate(weights, sample_counts)
