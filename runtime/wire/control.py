"""Control messages as they come in: validated once; a kind that nobody knows is told apart."""

import re
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from runtime.errors import MalformedMessageError, UnknownKindError
from runtime.wire.commands import AnyCommand, AnyReply
from runtime.wire.fields import OnUnknown, checked_size, first_fault, received
from runtime.wire.versions import Incompatible, UnknownCommand

_KIND = re.compile("[a-z_]{1,40}")

SentCommand = AnyCommand | Incompatible
SentReply = AnyReply | UnknownCommand

_COMMAND: TypeAdapter[SentCommand] = TypeAdapter(
    Annotated[SentCommand, Field(discriminator="kind")]
)
_REPLY: TypeAdapter[SentReply] = TypeAdapter(Annotated[SentReply, Field(discriminator="kind")])


def decode_command(
    payload: bytes | memoryview, *, on_unknown: OnUnknown = lambda *_: None
) -> SentCommand:
    """Validate what the coordinator sent to a device."""
    try:
        return received(_COMMAND.validate_json, checked_size(payload), on_unknown=on_unknown)
    except ValidationError as error:
        raise _fault("command", error) from error


def decode_reply(
    payload: bytes | memoryview, *, on_unknown: OnUnknown = lambda *_: None
) -> SentReply:
    """Validate what a device sent to the coordinator."""
    try:
        return received(_REPLY.validate_json, checked_size(payload), on_unknown=on_unknown)
    except ValidationError as error:
        raise _fault("reply", error) from error


def _fault(what: str, error: ValidationError) -> MalformedMessageError | UnknownKindError:
    if error.error_count() == 1:
        fault = error.errors(include_url=False, include_input=False)[0]
        if fault["type"] == "union_tag_invalid" and _KIND.fullmatch(tag := fault["ctx"]["tag"]):
            return UnknownKindError(what, tag)
    return MalformedMessageError(f"not a {what}: {first_fault(error)}")
