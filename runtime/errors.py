"""Every error that a caller can act on, wherever it is raised.

* EdgeError
    * SettingsError          the user asked for what cannot be; the message says what can
    * TakenError             another program holds the id, the site or the port; stop it first
    * StorageError           the disk does not take what is written; make room and go on
    * DivergedError          numbers are no longer finite; a lower learning rate may help
    * CannotTrainError       nobody is left who can train as planned; other devices could
    * CheckFailedError       a check found what is not as it should be
    * WorkerError            a process that trained for a comparison failed
    * BusError               the way to the broker failed; trying again may help
        * MessageSizeError   the broker does not take a message of that size; a smaller one may go
    * ProtocolError          a peer broke the conversation; trying again will not help
        * UnexpectedEventError
        * MalformedMessageError
            * UnknownKindError   a newer peer may have sent it; it is counted, and told of once
    * NotServedError         nobody computes the server half, or not in time; trying later may help
    * RefusedError           the server half does not compute that; the message says what it would
    * LinkProbeError         a link was measured in vain; later it may go better
    * SendError              an answer could not be sent; the device is out of its turn
    * DeviceGoneError        a device answers no more; the others go on
        * LateError
    * ClusterLostError       too few of a cluster are left; its turn is undone
        * StepFailedError
        * SpoiltStepError

Packages without I/O raise a ValueError of their own, which whoever calls them translates:
InfeasiblePlanError, StrategyError, EmulationError, RecordingError and ScenarioError. What never
leaves its package is not here.
"""


class EdgeError(Exception):
    """Root of the errors this project raises on purpose."""


class SettingsError(EdgeError):
    """A setting, an argument or data that cannot be used; says which and what would be right."""


class TakenError(EdgeError):
    """Another program holds what only one can have: a device id, a site, a port."""


class StorageError(EdgeError):
    """A file or folder that cannot be written; says which and why."""


class DivergedError(EdgeError):
    """Training went to numbers that are not finite."""


class CannotTrainError(EdgeError):
    """No plan, cluster or device can do what the job asks; the message says why."""


class CheckFailedError(EdgeError):
    """A check that the user asked for found something wrong; what it printed says what."""


class WorkerError(EdgeError):
    """A process that trained beside this one failed; says what of."""


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


class UnknownKindError(MalformedMessageError):
    """A message of a kind that nobody here knows; a newer peer may."""

    def __init__(self, what: str, kind: str) -> None:
        super().__init__(f"no {what} is called {kind!r} here")
        self.kind = kind


def root_cause(error: BaseException) -> BaseException:
    """Give what is inside nested exception groups: the first failure, which stopped the rest."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
