"""A cluster whose devices are in this thread, one after another."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from device_agent.agent.trainer import Trainer
from edge_coordinator.training.algorithm import Collected, Smashed
from runtime.protocol.events import (
    CollectWeights,
    DeviceEvent,
    ForwardDone,
    LoadModel,
    RunBackward,
    RunForward,
    WeightsCollected,
    Work,
)
from runtime.wire.commands import Join
from runtime.wire.frames import StepId, Tensor


class PlainCluster:
    """The devices of a cluster one after another, in this thread; keeps `algorithm.Cluster`."""

    def __init__(self, workloads: Mapping[str, Trainer], counts: Mapping[str, int]) -> None:
        self._workloads = workloads
        self._counts = counts
        self._todo: dict[str, list[Work]] = {}

    @property
    def sample_counts(self) -> Mapping[str, int]:
        """|D_k| of each device."""
        return self._counts

    def join(self, join: Join) -> None:
        """Cut each device's network for a turn."""
        self._step = StepId(join.run, join.round, join.cluster, 0)
        for workload in self._workloads.values():
            workload.open(join)

    async def load(self, device_side: Sequence[Tensor]) -> None:
        """Give every device the model."""
        self._todo = {device: [LoadModel(tuple(device_side))] for device in self._workloads}

    async def forward(self) -> Mapping[str, Smashed]:
        """Smashed data of every device, in device-id order."""
        smashed = {}
        for device in self._workloads:
            done = self._run(device, RunForward(self._step))
            assert isinstance(done, ForwardDone)
            smashed[device] = Smashed(*done.tensors)
        return smashed

    async def backward(self, gradients: Mapping[str, Tensor], aggregated: Tensor | None) -> None:  # noqa: ARG002
        """Keep each device's gradient for its next piece of work, as the agents have it."""
        for device, gradient in gradients.items():
            self._todo[device] = [RunBackward(self._step, (gradient,), is_last=True)]
        self._step = replace(self._step, epoch=self._step.epoch + 1)

    async def weights(self) -> Collected:
        """Collect the device-side models after the last local epoch."""
        collected = {}
        for device in self._workloads:
            done = self._run(device, CollectWeights(self._step))
            assert isinstance(done, WeightsCollected)
            collected[device] = done.tensors
        return Collected(collected)

    def _run(self, device: str, last: Work) -> DeviceEvent:
        todo, self._todo[device] = self._todo[device], []
        return self._workloads[device].run([*todo, last])
