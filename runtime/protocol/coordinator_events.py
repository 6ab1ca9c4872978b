"""What happens to the coordinator's half of a conversation, and what it wants done."""

from dataclasses import dataclass

from runtime.protocol.events import FrameArrived, FrameSent
from runtime.protocol.timers import Allowance
from runtime.wire.chunks.questions import Inquire, SendAgain
from runtime.wire.commands import (
    AnyReply,
    Assignment,
    Join,
    Joined,
    LinkMeasured,
    MeasureLink,
    Ready,
)
from runtime.wire.frames import Frame, FrameKind, StepId, TensorSpec

Request = Assignment | Join | MeasureLink
Reply = Ready | Joined | LinkMeasured


@dataclass(frozen=True)
class FrameRequest:
    """A frame that the device is sent, and the one that it is to answer with."""

    kind: FrameKind
    step: StepId
    answer_kind: FrameKind
    answer_step: StepId
    specs: tuple[TensorSpec, ...]
    """Of the answer."""
    more_specs: tuple[tuple[TensorSpec, ...], ...] = ()
    """Of the answer's micro-batches after the first, where it comes in several frames."""
    num_parts: int = 1
    """Frames that are sent to the device: one for each micro-batch of a gradient, or one for the
    samples that are aggregated and one for the rest."""

    @property
    def answers(self) -> tuple[tuple[TensorSpec, ...], ...]:
        """Shapes of each frame of the answer."""
        return (self.specs, *self.more_specs)


Asked = Request | FrameRequest

# Events, in the past tense.


@dataclass(frozen=True)
class Arrived:
    """A session of the device showed up that was not known; whatever an older one had is lost."""

    session: str


@dataclass(frozen=True)
class Went:
    """The device says, or its broker does, that its connection is gone."""


@dataclass(frozen=True)
class Returned:
    """The same session has found its connection again."""


@dataclass(frozen=True)
class Seen:
    """The device says that it is there, which was known."""


@dataclass(frozen=True)
class Excluded:
    """The device may take part no longer."""

    reason: str


@dataclass(frozen=True)
class BusLost:
    """Our own connection broke."""


@dataclass(frozen=True)
class BusBack:
    """Our own connection stands again."""


@dataclass(frozen=True)
class AskedFor:
    """Somebody here wants an answer of the device."""

    what: Asked
    allowance: Allowance


@dataclass(frozen=True)
class Abandoned:
    """Nobody here wants that answer any more."""

    what: Asked


@dataclass(frozen=True)
class ReplyArrived:
    """The device sent a control message."""

    message: AnyReply


@dataclass(frozen=True)
class PartArrived:
    """A part of a frame came, asked for or not."""

    kind: FrameKind
    step: StepId
    is_last: bool
    """By its place in the frame."""


CoordinatorEvent = (
    Arrived
    | Went
    | Returned
    | Seen
    | Excluded
    | BusLost
    | BusBack
    | AskedFor
    | Abandoned
    | ReplyArrived
    | PartArrived
    | FrameArrived
    | FrameSent
)

# Commands, in the imperative.


@dataclass(frozen=True)
class SendCommand:
    """Send a control message to the device."""

    message: Request | Inquire | SendAgain


@dataclass(frozen=True)
class SendParts:
    """Send a frame, or those parts of it that have not come; then say `FrameSent`."""

    kind: FrameKind
    step: StepId
    missing: tuple[tuple[int, int], ...]
    """The first and the last of each run of chunks; none: all of them."""


@dataclass(frozen=True)
class Deliver:
    """Hand on what the device answered."""

    what: Asked
    answer: Reply | Frame
    took_s: float | None
    """None if a connection broke meanwhile, or there was more to do than was known."""


@dataclass(frozen=True)
class DeliverPart:
    """Hand on one micro-batch of an answer that is not whole yet."""

    what: FrameRequest
    answer: Frame


@dataclass(frozen=True)
class GiveUp:
    """Tell whoever asked that there will be no answer."""

    what: Asked
    reason: str
    waited_s: float | None = None
    """How long it was waited for, if the device was late."""


@dataclass(frozen=True)
class NoteRefusal:
    """Ask nothing of the device in this run: it says why."""

    reason: str


@dataclass(frozen=True)
class NoteLost:
    """End the run for the device, and give it the job anew: it is not in a turn that it was in."""


@dataclass(frozen=True)
class NoteReady:
    """Take an answer to the assignment that nobody waits for."""

    ready: Ready


@dataclass(frozen=True)
class NoteLateAnswer:
    """Learn how long an answer took that had been given up."""

    took_s: float


@dataclass(frozen=True)
class NoteFree:
    """The device can be asked again."""


@dataclass(frozen=True)
class CountDropped:
    """Count a message that nobody waits for."""


CoordinatorCommand = (
    SendCommand
    | SendParts
    | Deliver
    | DeliverPart
    | GiveUp
    | NoteRefusal
    | NoteLost
    | NoteReady
    | NoteLateAnswer
    | NoteFree
    | CountDropped
)
