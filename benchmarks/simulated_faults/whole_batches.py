"""Turns whose mini-batches go as a whole: a step waits for an answer of each device."""

from functools import partial

from benchmarks.simulated_faults.device import SPEC, Weights
from benchmarks.simulated_faults.job import (
    EPOCHS,
    PATIENCE,
    SimulatedJob,
    backpropagated,
    float_weights,
)
from runtime.protocol.coordinator_events import AskedFor, FrameRequest
from runtime.protocol.events import DeviceLost, FrameArrived, GatheringEvent
from runtime.protocol.gathering import Gathering
from runtime.wire.frames import Frame, FrameKind


class WholeBatchesJob(SimulatedJob):
    """One job whose turns ask all devices at once."""

    _gathering: Gathering | None = None
    _epoch = 0

    def begin_turn(self) -> None:
        """Send all the device-side model."""
        self._epoch = 0
        self._ask_all(FrameKind.MODEL, dict.fromkeys(self.peers, self.weights))

    def frame_came(self, device: str, request: FrameRequest, frame: Frame) -> None:  # noqa: ARG002
        """Take a device's answer."""
        assert self._gathering is not None
        self._gather(self._gathering, FrameArrived(device, frame))

    def lost(self, device: str, request: FrameRequest, reason: str) -> None:  # noqa: ARG002
        """Wait for the others, then undo the turn."""
        if self._gathering is not None:
            self._gather(self._gathering, DeviceLost(device, reason))

    def _ask_all(self, kind: FrameKind, tensors: dict[str, Weights]) -> None:
        is_last = kind is FrameKind.GRADIENT and self._epoch + 1 == EPOCHS
        step = self.step(self._epoch)
        self._epoch += kind is FrameKind.GRADIENT and not is_last
        answer = FrameKind.WEIGHTS if is_last else FrameKind.SMASHED
        parts = {device: self.parted(kind, each) for device, each in tensors.items()}
        num_parts = len(next(iter(parts.values())))
        request = FrameRequest(
            kind, step, answer, self.step(self._epoch), (SPEC,), num_parts=num_parts
        )
        self._gathering = Gathering(answer, request.answer_step, dict.fromkeys(tensors, (SPEC,)))
        for device, own in parts.items():
            self.tell(device, AskedFor(request, PATIENCE))
            for index, each in enumerate(own):
                if self.peers[device].session.asked_for(answer, request.answer_step):
                    self.send(device, Frame(kind, step.part(index), (each,)))

    def parted(self, kind: FrameKind, tensor: Weights) -> list[Weights]:  # noqa: ARG002
        """Part what is sent into its frames."""
        return [tensor]

    def _gather(self, gathering: Gathering, event: GatheringEvent) -> None:
        """Take a server step, or the average; or undo the turn that has lost somebody."""
        for gathered in gathering.handle(event):
            self._gathering = None
            frames = {
                device: Frame(gathering.kind, gathering.step, tensors)
                for device, tensors in gathered.answers.items()
            }
            answers = {device: float_weights(frame) for device, frame in frames.items()}
            if gathered.lost:
                self.undo_turn()
            elif gathering.kind is FrameKind.SMASHED:
                self.later(0.1, partial(self._server_step, answers))
            else:
                self.finish_turn(list(answers.values()))

    def _server_step(self, smashed: dict[str, Weights]) -> None:
        computed = {device: backpropagated(each, self.server) for device, each in smashed.items()}
        self.update_server([computed[device][1] for device in sorted(computed)])
        gradients = {device: computed[device][0] for device in sorted(computed)}
        self._ask_all(FrameKind.GRADIENT, self.returned(gradients))

    def returned(self, gradients: dict[str, Weights]) -> dict[str, Weights]:
        """Say what each device is given for its gradient."""
        return gradients
