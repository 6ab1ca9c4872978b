"""Control messages: JSON, validated once, where they enter.

`Message` is frozen, forbids unknown fields and refuses NaN and infinity. Tensors are never here:
they travel as frames (`runtime.tensors`).
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from runtime.errors import MalformedMessageError

MAX_MESSAGE_BYTES = 1_000_000
"""No control message is longer; a longer one is refused unread."""

Scalar = bool | int | float | str
DeviceId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
RunId = Annotated[int, Field(ge=0, lt=2**64)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Small = Annotated[int, Field(ge=0, le=0xFFFF)]


class Message(BaseModel):
    """Base of everything that travels as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def encode(self) -> bytes:
        """Serialise as JSON."""
        return self.model_dump_json().encode()

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        """Validate JSON; MalformedMessageError says what is wrong."""
        try:
            return cls.model_validate_json(_checked(payload))
        except ValidationError as error:
            raise MalformedMessageError(f"not a {cls.__name__}: {_first(error)}") from error


class OptimizerSpec(Message):
    """An optimiser without its learning rate, which the coordinator gives for each cluster."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = Field(0.0, ge=0, lt=1, description="of sgd")
    nesterov: bool = Field(default=False, description="of sgd; needs momentum")
    weight_decay: float = Field(0.0, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1, description="of adam and adamw")
    beta2: float = Field(0.999, ge=0, lt=1, description="of adam and adamw")
    epsilon: float = Field(1e-8, gt=0, description="of adam and adamw")

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the tensors that this optimiser keeps for each parameter, in wire order."""
        if self.name == "sgd":
            return ("momentum_buffer",) if self.momentum else ()
        return ("step", "exp_avg", "exp_avg_sq")


class DeviceStatus(Message):
    """Retained by each device and, with `offline`, its last will."""

    state: Literal["online", "offline"]
    session: str = Field(max_length=64, description="token of this start of the agent")
    since_unix_s: float = Field(description="when this session began, seconds since 1970")
    engine: str = ""
    version: str = ""


class CoordinatorStatus(Message):
    """Retained by the coordinator and, with `offline`, its last will."""

    state: Literal["online", "offline"]
    session: str = Field(max_length=64)
    since_unix_s: float
    run: RunId = 0
    phase: str = Field("", description="what it does or waits for, for people")


class DeviceProfile(Message):
    """What a device is; retained, for planning and for watching."""

    device: DeviceId
    engine: str
    machine: str = Field(description="processor architecture")
    num_cores: int = Field(ge=1)
    memory_bytes: int = Field(ge=0, description="physical memory")
    free_memory_bytes: int = Field(ge=0)
    num_samples: int = Field(ge=0, description="samples of its own data")
    sample_shape: tuple[int, ...]
    measured_at_unix_s: float


class Assignment(Message):
    """The job, as a device needs it: coordinator to device, once a run."""

    kind: Literal["assignment"] = "assignment"
    run: RunId
    network: str
    options: dict[str, Scalar | list[int]]
    loss: str
    seed: Count
    batch_size: int = Field(ge=1)
    held_out: float = Field(ge=0, lt=1, description="fraction of its data kept for evaluation")
    max_evaluation_samples: int = Field(ge=1)
    num_classes: int | None = Field(ge=1, description="labels are integers below this, if given")
    optimizer: OptimizerSpec
    carry_state: bool = Field(description="optimiser state travels with the device-side model")


class Join(Message):
    """Take part in a cluster's turn: coordinator to device, once a round."""

    kind: Literal["join"] = "join"
    run: RunId
    round: Count
    cluster: Small
    purpose: Literal["train", "train_locally", "evaluate"]
    cut: int = Field(ge=0)
    local_epochs: int = Field(ge=1, le=0xFFFF)
    learning_rate: float = Field(ge=0)


class Stop(Message):
    """The run is over; the device waits for the next."""

    kind: Literal["stop"] = "stop"
    run: RunId


class Challenge(Message):
    """Somebody wants to own an id: whoever owns it answers with its status."""

    kind: Literal["challenge"] = "challenge"
    session: str = Field(max_length=64)


class Ready(Message):
    """Device to coordinator: the answer to an assignment."""

    kind: Literal["ready"] = "ready"
    run: RunId
    num_samples: int = Field(ge=1)
    num_held_out: int = Field(ge=0, description="samples it evaluates on when asked")
    label_dtype: Literal["|u1", "<u2", "<i8", "<f4"]
    label_shape: tuple[Small, ...] = Field(max_length=8, description="of one sample")


class Joined(Message):
    """Device to coordinator: the answer to a join."""

    kind: Literal["joined"] = "joined"
    run: RunId
    round: Count
    cluster: Small


class Refused(Message):
    """Device to coordinator: it cannot do what was asked, and why."""

    kind: Literal["refused"] = "refused"
    run: RunId
    reason: str = Field(max_length=2000)


class DeviceMetrics(Message):
    """What a cluster's turn cost this device."""

    run: RunId
    round: Count
    cluster: Small
    forward_s: float = Field(ge=0)
    backward_s: float = Field(ge=0)
    upload_s: float = Field(ge=0, description="until the broker had acknowledged every upload")
    waiting_s: float = Field(ge=0, description="between an upload and what came back")
    up_bytes: int = Field(ge=0)
    down_bytes: int = Field(ge=0)


class ClusterReport(Message):
    """One cluster of a plan."""

    devices: tuple[DeviceId, ...]
    shares: tuple[float, ...]


class PlanReport(Message):
    """The plan of a round, retained."""

    run: RunId
    round: Count
    method: str
    cut: int
    cut_layer: str
    clusters: tuple[ClusterReport, ...]
    left_out: dict[str, str] = Field(description="device id to reason")
    reason: str


class RoundReport(Message):
    """The last round, retained; also a line of the run's record."""

    run: RunId
    round: Count
    cut_layer: str
    num_clusters: int
    num_devices: int
    learning_rate: float
    train_loss: float | None
    test_loss: float | None = None
    test_accuracy: float | None = Field(None, description="fraction right")
    evaluated_on: Literal["coordinator", "devices"] | None = None
    round_s: float
    elapsed_s: float = Field(description="since training began, evaluation included")
    up_bytes: int = Field(description="received from the devices in this round")
    down_bytes: int = Field(description="published for the devices in this round")
    lost: dict[str, str] = Field(default={}, description="device id to why it fell out")


Command = Annotated[Assignment | Join | Stop | Challenge, Field(discriminator="kind")]
Reply = Annotated[Ready | Joined | Refused, Field(discriminator="kind")]

_COMMAND: TypeAdapter[Assignment | Join | Stop | Challenge] = TypeAdapter(Command)
_REPLY: TypeAdapter[Ready | Joined | Refused] = TypeAdapter(Reply)


def decode_command(payload: bytes | memoryview) -> Assignment | Join | Stop | Challenge:
    """Validate what the coordinator sent to a device."""
    try:
        return _COMMAND.validate_json(_checked(payload))
    except ValidationError as error:
        raise MalformedMessageError(f"not a command: {_first(error)}") from error


def decode_reply(payload: bytes | memoryview) -> Ready | Joined | Refused:
    """Validate what a device sent to the coordinator."""
    try:
        return _REPLY.validate_json(_checked(payload))
    except ValidationError as error:
        raise MalformedMessageError(f"not a reply: {_first(error)}") from error


def _checked(payload: bytes | memoryview) -> bytes:
    if len(payload) > MAX_MESSAGE_BYTES:
        raise MalformedMessageError(
            f"a control message of {len(payload)} bytes is longer than {MAX_MESSAGE_BYTES}"
        )
    return bytes(payload)


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in found["loc"])
    return f"{place or 'message'}: {found['msg']}"
