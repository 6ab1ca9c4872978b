"""What a running coordinator can be asked from outside, and what it answers; tags of devices."""

from typing import Annotated, Literal

from pydantic import Field

from runtime.wire.fields import Message, Round, RunId, Token, Words

Action = Literal["pause", "continue", "stop", "replan"]
Condition = Literal["running", "paused", "stopping"]

TagText = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$")]


class ControlRequest(Message):
    """Asks the coordinator of a site to do something with its run."""

    action: Action = Field(
        description="pause: after the present round, until continue; stop: end there, as if all "
        "rounds were done; replan: choose the cut anew for the next round"
    )
    request: Token = Field(description="repeated in the answer; the same again is the same request")
    run: RunId | None = Field(
        None, description="only if it works at this one; null: whatever it is"
    )
    by: Words = Field("", description="who asks, as they say themselves")


class ControlAnswer(Message):
    """What came of the last request; retained."""

    action: Action
    request: Token
    run: RunId
    accepted: bool
    condition: Condition = Field(description="of the run from now on")
    round: Round = Field(description="the last that is over")
    words: Words = Field(description="what happens now, or why not, for people")


class DeviceTags(Message):
    """What people call a device by; retained."""

    tags: Annotated[dict[TagText, TagText], Field(max_length=32)] = Field(
        description="such as room: lab"
    )
