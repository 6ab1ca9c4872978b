"""What every JSON message is made of: the base class, and fields with bounds.

`Message` is frozen, forbids unknown fields and refuses NaN and infinity. Every number, text and
list has a bound: a stranger may have written it. What is received may have fields that only a newer
peer knows: they are ignored and counted (docs/compatibility.md).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)
from pydantic_core import ErrorDetails

from runtime.errors import MalformedMessageError

MAX_MESSAGE_BYTES = 64 * 1024
"""A longer message is refused unread: checking it may take a thousand times its size."""
MAX_PROFILE_BYTES = 256 * 1024
"""The same for a profile, which may tell of many layers and labels."""
MAX_REPORT_BYTES = 4_000_000
"""The same for what tells of all devices at once, and comes from the coordinator only."""
MAX_WORDS = 2000
MAX_LABEL_VALUES = 2**24
"""The label of one sample holds no more: a mask of 4096 x 4096 pixels."""
MAX_OPTIONS = 100
"""In all, and in each list or table among them."""
MAX_OPTION_VALUES = MAX_OPTIONS * (MAX_OPTIONS + 1)
MAX_OPTION_DEPTH = 4
MAX_SECONDS = 1e6
"""Eleven days: nothing that a device measures of itself takes longer."""
MAX_BPS = 1e15
MAX_FLOP_PER_S = 1e18
LEAST_RATE = 1.0
"""A bit, or a FLOP, per second; what is slower stands still, and what it costs has no bound."""

OnUnknown = Callable[[int, str], None]
"""Hears how many fields of a message nobody here knows, and where the first of them is."""

_MAX_NAMED_FAULTS = 20
_MAX_FAULT_LETTERS = 200


def as_words(text: str) -> str:
    """Text that is safe to show and to send: not too long, and printable."""
    shown = text[:MAX_WORDS]
    return "".join(letter if letter.isprintable() else " " for letter in shown)


def _clean(text: object) -> object:
    return as_words(text) if isinstance(text, str) else text


def _bounded_label(shape: tuple[int, ...]) -> tuple[int, ...]:
    if math.prod(shape) > MAX_LABEL_VALUES:
        raise ValueError(f"a label has at most {MAX_LABEL_VALUES} values")
    return shape


def _checked_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take tables and lists of what options may be, in one another; ValueError for all else."""
    checked: dict[str, Any] = _checked_option(options, "the table", [MAX_OPTION_VALUES], depth=0)
    return checked


def _checked_option(value: object, name: str, left: list[int], *, depth: int) -> Any:  # noqa: ANN401
    """`left` holds how many values there may still be, `depth` in how many others this one is."""
    if isinstance(value, dict | list | tuple):
        left[0] -= len(value)
        if len(value) > MAX_OPTIONS or left[0] < 0 or depth > MAX_OPTION_DEPTH:
            raise ValueError(
                f"{name} is too large: of lists and tables each has at most {MAX_OPTIONS} values, "
                f"all together {MAX_OPTION_VALUES}, and {MAX_OPTION_DEPTH} lie in each other"
            )
        if isinstance(value, dict):
            return {
                str(key): _checked_option(each, name if depth else str(key), left, depth=depth + 1)
                for key, each in value.items()
            }
        return [_checked_option(each, name, left, depth=depth + 1) for each in value]
    is_number = isinstance(value, int) and -(2**63) <= value < 2**64
    if is_number or isinstance(value, str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(
        f"{name} has {value!r:.80}; what an option may be is true or false, a number of 64 bits, "
        "text, or a list or a table of these"
    )


def are_nested(options: Mapping[str, object]) -> bool:
    """Whether there is more in them than single values and lists of whole numbers."""
    lists = [each for each in options.values() if isinstance(each, list)]
    return any(isinstance(each, dict) for each in options.values()) or not all(
        isinstance(value, int) for each in lists for value in each
    )


Number = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Options = Annotated[dict[str, Any], AfterValidator(_checked_options)]
"""Arguments of a factory: true or false, numbers, text, and lists and tables of these."""
DeviceId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
RunId = Annotated[int, Field(ge=0, lt=2**64)]
Round = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS)]
BitsPerSecond = Annotated[float, Field(ge=LEAST_RATE, le=MAX_BPS)]
FlopPerSecond = Annotated[float, Field(ge=LEAST_RATE, le=MAX_FLOP_PER_S)]
Small = Annotated[int, Field(ge=0, le=0xFFFF)]
Token = Annotated[str, Field(max_length=64)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Words = Annotated[str, BeforeValidator(_clean)]
"""A sentence for people; what cannot be shown is cut off or left blank, never refused."""
Patterns = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=100)
]
"""Names of parameters, where `*` stands for any letters, dots too, and `?` for one."""
VECTORS = "<vectors>"
"""Among patterns: all parameters of one axis or none, as biases and those of norms are."""
LabelShape = Annotated[tuple[Small, ...], Field(max_length=8), AfterValidator(_bounded_label)]


class Message(BaseModel):
    """Base of everything that travels as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    max_bytes: ClassVar[int] = MAX_MESSAGE_BYTES
    unsent_if_none: ClassVar[tuple[str, ...]] = ()
    """Fields that are left out where they are None."""

    def encode(self) -> bytes:
        """Serialise as JSON."""
        return self.model_dump_json(exclude=self._unsent() or None).encode()

    def _unsent(self) -> dict[str, Any]:
        """Fields to leave out, those of messages in this one too, as pydantic's `exclude`."""
        unsent: dict[str, Any] = {
            name: True for name in self.unsent_if_none if getattr(self, name) is None
        }
        for name, value in self:
            if isinstance(value, tuple) and value and isinstance(value[0], Message):
                of_each = {index: each._unsent() for index, each in enumerate(value)}  # noqa: SLF001
                unsent[name] = {index: below for index, below in of_each.items() if below}
        return {name: what for name, what in unsent.items() if what}

    @classmethod
    def decode(
        cls, payload: bytes | memoryview, *, on_unknown: OnUnknown = lambda *_: None
    ) -> Self:
        """Validate JSON; MalformedMessageError says what is wrong."""
        text = checked_size(payload, cls.max_bytes)
        try:
            return received(cls.model_validate_json, text, on_unknown=on_unknown)
        except ValidationError as error:
            raise MalformedMessageError(f"not a {cls.__name__}: {first_fault(error)}") from error


Received = TypeVar("Received")


def named_by(patterns: Iterable[str], name: str) -> bool:
    """Whether some pattern is this name; capitals count."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def received(validate: Callable[..., Received], text: bytes, *, on_unknown: OnUnknown) -> Received:
    """Validate what a peer sent, without the fields that only a newer one knows."""
    try:
        return validate(text)
    except ValidationError as error:
        num_faults, first = error.error_count(), _first_place(error)
    message = validate(text, extra="ignore")
    on_unknown(num_faults, first)  # Nothing else was wrong.
    return message


def checked_size(payload: bytes | memoryview, max_bytes: int = MAX_MESSAGE_BYTES) -> bytes:
    """Take a payload that is not too long to be looked at."""
    if len(payload) > max_bytes:
        raise MalformedMessageError(
            f"a control message of {len(payload)} bytes is longer than {max_bytes}"
        )
    return bytes(payload)


def first_fault(error: ValidationError) -> str:
    """Name the first fault and its place, in words that are safe to show."""
    if error.error_count() > _MAX_NAMED_FAULTS:
        return f"{error.error_count()} faults"  # A list of all of them would be far larger.
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return as_words(f"{_place(found)}: {found['msg']}"[:_MAX_FAULT_LETTERS])


def _first_place(error: ValidationError) -> str:
    if error.error_count() > _MAX_NAMED_FAULTS:
        return f"{error.error_count()} of them"
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return as_words(_place(found)[:_MAX_FAULT_LETTERS])


def _place(fault: ErrorDetails) -> str:
    return ".".join(str(part) for part in fault["loc"]) or "message"
