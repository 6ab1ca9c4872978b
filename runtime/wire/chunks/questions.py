"""What is asked, and answered, about frames: how far they are, what was lost, who may send one."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from runtime.wire.fields import (
    Count,
    Message,
    Positive,
    Round,
    RunId,
    Sha256,
    Small,
    Token,
    Words,
)
from runtime.wire.micro_batches import MOST_MICRO_BATCHES, MOST_SAMPLES

MAX_RANGES = 1000
"""Of chunks that one message names; what else is missing is asked for by the next."""

Chunks = Annotated[
    tuple[tuple[Small, Small], ...],
    Field(max_length=MAX_RANGES, description="chunks, as pairs of the first and the last of a run"),
]
RequestFrame = Literal["graphs", "model", "gradient"]
MicroBatchIndex = Annotated[
    int | None, Field(ge=1, lt=MOST_MICRO_BATCHES, description="of the step; none: the first")
]


class Inquire(Message):
    """How far is a device with what was sent to it? Asked before anything goes twice.

    A device that lacks several micro-batches answers for each of them.
    """

    kind: Literal["inquire"] = "inquire"
    run: RunId
    round: Round
    cluster: Small
    epoch: Small
    request: RequestFrame
    number: Positive = Field(description="of the question; its answer has the same")


class SendAgain(Message):
    """Send parts of an answer again: those that were lost on the way to the coordinator."""

    unsent_if_none: ClassVar[tuple[str, ...]] = ("micro_batch",)

    kind: Literal["send_again"] = "send_again"
    run: RunId
    round: Round
    cluster: Small
    epoch: Small
    micro_batch: MicroBatchIndex = None
    answer: Literal["smashed", "weights"]
    chunks: Chunks


class Holding(Message):
    """Device to coordinator: how far it is with a frame; also unasked, while one comes slowly."""

    unsent_if_none: ClassVar[tuple[str, ...]] = ("micro_batch",)

    kind: Literal["holding"] = "holding"
    run: RunId
    round: Round
    cluster: Small
    epoch: Small
    micro_batch: MicroBatchIndex = None
    request: RequestFrame
    number: Count = Field(description="of the question that this answers; 0 if nobody asked")
    state: Literal["receiving", "working", "sending", "sent"] = Field(
        description="sent: all of the answer is with the broker"
    )
    missing: Chunks = Field(
        (), description="receiving: parts of the frame that have not come; none: all of them"
    )


class NotInTurn(Message):
    """Device to coordinator: it was asked about a turn that it is not in, and cannot enter.

    It may have lost its assignment, or its turn, or have been led beyond it by somebody else.
    """

    kind: Literal["not_in_turn"] = "not_in_turn"
    run: RunId
    round: Round
    cluster: Small


class InferenceRequest(Message):
    """Device to server half: a batch is ready; the same again is the same request."""

    request: RunId = Field(description="of this start of the device's program")
    batch: Round = Field(description="counted by the device, from 1")
    num_samples: int = Field(ge=1, le=MOST_SAMPLES)
    codec: Token = Field("fp32", description="of the smashed data")
    pair: Sha256 = Field(description="which the device half says of itself")


class InferenceAnswer(Message):
    """Server half to device: what becomes of a request, but for its outputs."""

    request: RunId
    batch: Round
    state: Literal["waiting", "send", "refused"] = Field(
        description="send: it is this device's turn to send its smashed data"
    )
    num_before: Count = Field(0, description="devices whose turn comes first")
    reason: Words = Field("", description="why it is refused, for people")
