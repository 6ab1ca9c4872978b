"""What happens to the two halves of the conversation, and what they want done."""

from dataclasses import dataclass, field
from math import inf

from runtime.wire.chunks.questions import Holding, Inquire, NotInTurn, SendAgain
from runtime.wire.commands import (
    Assignment,
    FrozenOffer,
    GraphsOffer,
    Join,
    Joined,
    NeedGraphs,
    Preparing,
    Ready,
    Refused,
    Stop,
)
from runtime.wire.frames import Frame, FrameKind, StepId, Tensor, TensorSpec

# Events, in the past tense.


@dataclass(frozen=True)
class CommandArrived:
    """The coordinator sent a control message."""

    message: Assignment | Join | Stop | Inquire | SendAgain
    quiet_s: float = inf
    """How long ago the coordinator that gave the job was heard of, if it was."""


@dataclass(frozen=True)
class PartCame:
    """Part of a frame came that was asked for, and it is time to say how far it is."""

    kind: FrameKind
    step: StepId


@dataclass(frozen=True)
class FrameSent:
    """All of a frame that was to be sent is with the broker, as far as that could be."""

    kind: FrameKind
    step: StepId


@dataclass(frozen=True)
class FrameArrived:
    """A whole frame arrived, of the kind, step and shapes that were asked for."""

    device: str
    """Whose frame it is; empty on the device itself."""
    frame: Frame


@dataclass(frozen=True)
class Prepared:
    """The device has its data and its network for the job."""

    ready: Ready


@dataclass(frozen=True)
class PassOpened:
    """The device has cut its network and listens to its cluster."""

    join: Join
    model: tuple[TensorSpec, ...]
    gradient: tuple[TensorSpec, ...]
    more_gradients: tuple[tuple[TensorSpec, ...], ...] = ()
    """Of the micro-batches after the first, where a mini-batch goes in several; or of the samples
    after those that are aggregated."""

    @property
    def gradients(self) -> tuple[tuple[TensorSpec, ...], ...]:
        """Shapes of each frame of a gradient."""
        return (self.gradient, *self.more_gradients)


@dataclass(frozen=True)
class GraphsMissing:
    """The device has not got something of what it was offered with a join, or not whole."""

    join: Join
    offer: GraphsOffer | FrozenOffer


@dataclass(frozen=True)
class ForwardDone:
    """Smashed data and labels of a step."""

    step: StepId
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class BackwardDone:
    """A micro-batch went back that is not the last of its step."""

    step: StepId


@dataclass(frozen=True)
class WeightsCollected:
    """The device-side model after the last local epoch."""

    step: StepId
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class WorkFailed:
    """What the session had asked for could not be done."""

    run: int
    reason: str


@dataclass(frozen=True)
class DeviceLost:
    """A device will not answer any more."""

    device: str
    reason: str


DeviceEvent = (
    CommandArrived
    | FrameArrived
    | PartCame
    | FrameSent
    | Prepared
    | PassOpened
    | GraphsMissing
    | ForwardDone
    | BackwardDone
    | WeightsCollected
    | WorkFailed
)
GatheringEvent = FrameArrived | DeviceLost

# Commands, in the imperative.


@dataclass(frozen=True)
class Prepare:
    """Load the data and build the network of a job."""

    assignment: Assignment


@dataclass(frozen=True)
class OpenPass:
    """Cut the network, listen to the cluster's model topic."""

    join: Join


@dataclass(frozen=True)
class TakeGraphs:
    """Check what arrived of what was offered, keep it, and open the pass with it."""

    join: Join
    offer: GraphsOffer | FrozenOffer
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class SendReply:
    """Send a control message to the coordinator."""

    message: Ready | Preparing | Joined | NeedGraphs | Holding | Refused | NotInTurn


@dataclass(frozen=True)
class SendFrame:
    """Send a frame to the coordinator, or those parts of it that were lost; then `FrameSent`."""

    frame: Frame
    only: tuple[tuple[int, int], ...] = ()
    """The first and the last of each run of chunks; none: all of them."""


@dataclass(frozen=True)
class LoadModel:
    """Take over a device-side model."""

    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class RunForward:
    """Draw the step's mini-batch and run the device side forward, on one micro-batch of it."""

    step: StepId


@dataclass(frozen=True)
class RunBackward:
    """Run the device side backward from a micro-batch's gradient; after the last, update it."""

    step: StepId
    gradient: tuple[Tensor, ...]
    is_last: bool = field(kw_only=True)


@dataclass(frozen=True)
class TrainLocally:
    """Run all local epochs of the whole network on the device, loss included."""

    step: StepId


@dataclass(frozen=True)
class Predict:
    """Run the held-out samples forward in evaluation mode."""

    step: StepId


@dataclass(frozen=True)
class CollectWeights:
    """Hand out the device-side model."""

    step: StepId


Work = LoadModel | RunForward | RunBackward | TrainLocally | Predict | CollectWeights
"""Commands that compute; a run of them is one piece of work, whose last result is the event."""

DeviceCommand = Prepare | OpenPass | TakeGraphs | SendReply | SendFrame | Work


@dataclass(frozen=True)
class Gathered:
    """Every device that is still there has answered; in device-id order."""

    answers: dict[str, tuple[Tensor, ...]]
    lost: dict[str, str]
