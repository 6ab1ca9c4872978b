"""The answers of a cluster's devices to one request, until each has answered or is lost."""

from collections.abc import KeysView, Mapping

from runtime.errors import UnexpectedEventError
from runtime.protocol.events import (
    DeviceLost,
    FrameArrived,
    Gathered,
    GatheringEvent,
)
from runtime.wire.frames import Frame, FrameKind, StepId, Tensor, TensorSpec


class Gathering:
    """One request to several devices, until each has answered or is lost."""

    def __init__(
        self, kind: FrameKind, step: StepId, expected: Mapping[str, tuple[TensorSpec, ...]]
    ) -> None:
        """Expect from each device one frame of this kind and step with these tensors."""
        self.kind, self.step = kind, step
        self.num_dropped = 0
        """Answers that came more than once, or from a device that had been given up."""
        self._expected = dict(expected)
        self._missing = dict.fromkeys(sorted(expected))
        self._answers: dict[str, tuple[Tensor, ...]] = {}
        self._lost: dict[str, str] = {}

    @property
    def missing(self) -> KeysView[str]:
        """Devices that have yet to answer, in id order; follows what comes."""
        return self._missing.keys()

    def asked_for(
        self, device: str, kind: FrameKind, step: StepId
    ) -> tuple[TensorSpec, ...] | None:
        """Shapes of what this device has yet to send; None if it is nothing of the sort."""
        if kind is not self.kind or step != self.step or self._is_settled(device):
            return None
        return self._expected.get(device)

    def handle(self, event: GatheringEvent) -> list[Gathered]:
        """Take one event; what to do now."""
        match event:
            case FrameArrived(device, _) if self._is_settled(device):
                self.num_dropped += 1
                return []
            case FrameArrived(device, frame) if self._is_answer(device, frame):
                self._answers[device] = frame.tensors
                del self._missing[device]
                return self._close_if_complete()
            case DeviceLost(device, reason) if device in self.missing:
                self._lost[device] = reason
                del self._missing[device]
                return self._close_if_complete()
            case DeviceLost():
                return []
        raise UnexpectedEventError(f"gathering {self.kind.name}", event)

    def _is_settled(self, device: str) -> bool:
        return device in self._answers or device in self._lost

    def _is_answer(self, device: str, frame: Frame) -> bool:
        return self.asked_for(device, frame.kind, frame.step) is not None

    def _close_if_complete(self) -> list[Gathered]:
        if self._missing:
            return []
        ordered = {device: self._answers[device] for device in sorted(self._answers)}
        return [Gathered(ordered, dict(self._lost))]
