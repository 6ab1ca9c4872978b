"""What a device answers to one request: its frames, and how far they are with the broker."""

from typing import Literal

from runtime.protocol.events import SendFrame
from runtime.protocol.frame_steps import step_of
from runtime.wire.chunks.questions import SendAgain
from runtime.wire.frames import Frame, FrameKind, StepId

Request = tuple[FrameKind, StepId]
"""What was asked with; of several micro-batches the first stands for all."""


class Answers:
    """The frames that answer the last request: one, or one for each micro-batch."""

    def __init__(self) -> None:
        self.request: Request | None = None
        self._frames: dict[int, Frame] = {}
        """By micro-batch; those that the coordinator is known to have are let go of."""
        self._unsent: set[int] = set()
        self._num_to_come = 0

    def begin(self, request: Request, num_frames: int) -> None:
        """Answer another request, with so many frames."""
        self.request, self._num_to_come = request, num_frames
        self._frames, self._unsent = {}, set()

    def add(self, frame: Frame) -> SendFrame:
        """Take the next frame, and send it."""
        self._num_to_come -= 1
        self._frames[frame.step.micro_batch] = frame
        self._unsent.add(frame.step.micro_batch)
        return SendFrame(frame)

    def note_sent(self, kind: FrameKind, step: StepId) -> None:
        """Take note that all of a frame is with the broker."""
        frame = self._frames.get(step.micro_batch)
        if frame is not None and (frame.kind, frame.step) == (kind, step):
            self._unsent.discard(step.micro_batch)

    def note_used(self, micro_batch: int) -> None:
        """Take note that the coordinator has a frame: it has worked with it."""
        self._frames.pop(micro_batch, None)
        self._unsent.discard(micro_batch)

    @property
    def state(self) -> Literal["working", "sending", "sent"]:
        """How far the answer is."""
        if self._num_to_come:
            return "working"
        return "sending" if self._unsent else "sent"

    def again(self, message: SendAgain) -> list[SendFrame] | None:
        """Send what was lost of a frame, unless it is on its way; None if it is no frame here."""
        step = step_of(message)
        frame = self._frames.get(step.micro_batch)
        if frame is None or (frame.kind.name.lower(), frame.step) != (message.answer, step):
            return None
        if step.micro_batch in self._unsent:
            return []
        self._unsent.add(step.micro_batch)
        return [SendFrame(frame, message.chunks)]
