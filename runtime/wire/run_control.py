"""What a coordinator can be asked from outside, and what it answers: of its run, its queue."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from runtime.wire.fields import (
    MAX_REPORT_BYTES,
    Count,
    Message,
    Number,
    Positive,
    Round,
    RunId,
    Token,
    Words,
)

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


class WantedSettings(Message):
    """How people want a device's agent to work, within what its owner allows; retained."""

    settings: Annotated[dict[Token, Token | Number], Field(max_length=32)] = Field(
        description="log_level: debug, info, warning or error; threads: of the arithmetic; "
        "min_cut: the last of the layers that run there at least, or their number"
    )
    request: Token = Field("", description="repeated in the device's profile")
    by: Words = Field("", description="who wants it, as they say themselves")


class SettingsReport(Message):
    """What a device made of the settings that are wanted of it."""

    request: Token = Field("", description="of the message that it answers")
    by: Words = Field("", description="who wanted it, as they said themselves")
    applied: Annotated[dict[Token, Token], Field(max_length=32)] = Field(
        description="those that hold, by their names"
    )
    refused: Annotated[dict[Token, Words], Field(max_length=33)] = Field(
        {}, description="those that do not, and why; `message` if it could not be read"
    )


class QueueRequest(Message):
    """Asks the coordinator that serves a site's queue of jobs to take one, or to give one up."""

    action: Literal["submit", "cancel"]
    request: Token = Field(description="repeated in the answer; the same again is the same request")
    by: Words = Field("", description="who asks, as they say themselves")
    name: Token = Field("", description="of the job that is submitted, for people")
    job: str = Field("", max_length=50_000, description="the job file, as TOML")
    number: Count = Field(0, description="of the job that is given up")


class QueueAnswer(Message):
    """What came of a request to the queue."""

    request: Token
    accepted: bool
    number: Count = Field(0, description="of the job that it is about")
    words: Words = Field(description="what happens now, or why not, for people")


JobState = Literal["queued", "running", "done", "failed", "cancelled"]


class QueuedJob(Message):
    """A job that a site's coordinator was asked to train."""

    number: Positive
    name: Token
    state: JobState
    by: Words = ""
    submitted_at_unix_s: float
    ended_at_unix_s: float | None = None
    directory: str = Field("", description="of its run, on the coordinator; empty before it begins")
    words: Words = Field("", description="how it ended, for people")
    metric: Token | None = Field(None, description="what says how good its model is")
    test_metric: float | None = None


class QueueStatus(Message):
    """Who serves the queue of a site; retained, and with `offline` their last will."""

    state: Literal["online", "offline"]
    session: Token
    since_unix_s: float


class QueueReport(Message):
    """The queue of a site as it was told last, also if nobody serves it now; retained."""

    max_bytes: ClassVar[int] = MAX_REPORT_BYTES

    jobs: tuple[QueuedJob, ...] = Field((), max_length=10_000, description="in their order")
