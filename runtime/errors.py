"""Every error that a caller can act on.

* EdgeError
    * SettingsError         the user asked for what cannot be; the message says what can
    * BusError              the way to the broker failed; trying again may help
        * MessageSizeError  the broker does not take a message of that size; a smaller one may go
    * ProtocolError         a peer broke the conversation; trying again will not
        * UnexpectedEventError
        * MalformedMessageError
"""


class EdgeError(Exception):
    """Root of the errors this project raises on purpose."""


class SettingsError(EdgeError):
    """A setting, an argument or data that cannot be used; says which and what would be right."""


class BusError(EdgeError):
    """The way to the broker failed."""


class MessageSizeError(BusError):
    """A message that is larger than the broker takes, as it said or as its behaviour shows."""


class ProtocolError(EdgeError):
    """A peer broke the conversation."""


class UnexpectedEventError(ProtocolError):
    """An event that the session does not allow in its present phase; nothing was changed."""

    def __init__(self, phase: str, event: object) -> None:
        super().__init__(f"{type(event).__name__} is not allowed while {phase}: {event!r:.200}")


class MalformedMessageError(ProtocolError):
    """Bytes that are not the message which was asked for."""


def root_cause(error: BaseException) -> BaseException:
    """Give what is inside nested exception groups: the first failure, which stopped the rest."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
