"""Control messages: JSON, validated once, where they enter.

`Message` is frozen, forbids unknown fields and refuses NaN and infinity. Tensors are never here:
they travel as frames (`runtime.tensors`). Every number, text and list has a bound: a stranger may
have written it.
"""

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from runtime.errors import MalformedMessageError

MAX_MESSAGE_BYTES = 64 * 1024
"""A longer message is refused unread: checking it may take a thousand times its size."""
MAX_PROFILE_BYTES = 256 * 1024
"""The same for a profile, which may tell of many layers and labels."""
MAX_REPORT_BYTES = 4_000_000
"""The same for what tells of all devices at once, and comes from the coordinator only."""
MAX_GRAPHS_BYTES = 16_000_000
"""All graphs of a device side and their manifest: without weights they have some kB."""
MAX_WORDS = 2000
MAX_LABEL_VALUES = 2**24
"""The label of one sample holds no more: a mask of 4096 x 4096 pixels."""
MAX_OPTIONS = 100

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


def _bounded_graphs(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if sum(sizes) > MAX_GRAPHS_BYTES:
        raise ValueError(f"graphs have at most {MAX_GRAPHS_BYTES} bytes together")
    return sizes


def _bounded_options(options: object) -> object:
    """Refuse too many options before each of them is looked at."""
    if isinstance(options, dict):
        lists = [value for value in options.values() if isinstance(value, list)]
        if max(len(options), *map(len, lists), 0) > MAX_OPTIONS:
            raise ValueError(f"at most {MAX_OPTIONS} options, and as many numbers in a list")
    return options


Number = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Scalar = bool | Number | float | str
Options = Annotated[dict[str, Scalar | list[Number]], BeforeValidator(_bounded_options)]
DeviceId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
RunId = Annotated[int, Field(ge=0, lt=2**64)]
Round = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**63)]
Small = Annotated[int, Field(ge=0, le=0xFFFF)]
Token = Annotated[str, Field(max_length=64)]
Words = Annotated[str, BeforeValidator(_clean)]
"""A sentence for people; what cannot be shown is cut off or left blank, never refused."""
LabelShape = Annotated[tuple[Small, ...], Field(max_length=8), AfterValidator(_bounded_label)]


class Message(BaseModel):
    """Base of everything that travels as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    max_bytes: ClassVar[int] = MAX_MESSAGE_BYTES

    def encode(self) -> bytes:
        """Serialise as JSON."""
        return self.model_dump_json().encode()

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        """Validate JSON; MalformedMessageError says what is wrong."""
        try:
            return cls.model_validate_json(_checked(payload, cls.max_bytes))
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
    session: Token = Field(description="token of this start of the agent")
    since_unix_s: float = Field(description="when this session began, seconds since 1970")
    engine: Token = ""
    version: Token = ""


class CoordinatorStatus(Message):
    """Retained by the coordinator and, with `offline`, its last will."""

    state: Literal["online", "offline"]
    session: Token
    since_unix_s: float
    run: RunId = 0
    phase: Words = Field("", description="what it does or waits for, for people")


class LayerTiming(Message):
    """One layer of a job's network on one device."""

    name: Token
    forward_s: float = Field(ge=0, description="seconds per sample")
    backward_s: float = Field(ge=0, description="seconds per sample")


class ComputeProfile(Message):
    """How fast a device computes, measured on it, by the engine that trains."""

    network: Token = Field(description="whose layers these are; empty: a generic one")
    batch_size: Positive = Field(description="samples in the mini-batch it was measured with")
    layers: tuple[LayerTiming, ...] = Field((), max_length=5_000)
    forward_flop_per_s: float = Field(gt=0, description="effective, over all layers")
    backward_flop_per_s: float = Field(gt=0, description="effective, over all layers")
    relative_deviation: float = Field(ge=0, description="of the seconds, between repetitions")
    measured_at_unix_s: float


class LinkProfile(Message):
    """What a device's link carries, measured through the broker."""

    up_bps: float = Field(gt=0, description="bits per second, device to coordinator")
    up_deviation_bps: float = Field(ge=0)
    down_bps: float = Field(gt=0, description="bits per second, coordinator to device")
    down_deviation_bps: float = Field(ge=0)
    round_trip_s: float = Field(ge=0, description="of an empty message and its answer")
    round_trip_deviation_s: float = Field(ge=0)
    message_s: float = Field(ge=0, description="seconds that each message costs at any size")
    num_transfers: Count = Field(description="transfers that these figures rest on")
    measured_at_unix_s: float


class DeviceProfile(Message):
    """What a device is; retained, for planning and for watching."""

    max_bytes: ClassVar[int] = MAX_PROFILE_BYTES

    device: DeviceId
    engine: Token
    machine: Token = Field(description="processor architecture")
    num_cores: Positive
    memory_bytes: Count = Field(description="physical memory")
    free_memory_bytes: Count
    resident_bytes: Count = Field(0, description="memory that the agent's process holds")
    load_fraction: float | None = Field(None, ge=0, description="busy part of all cores")
    cpu_hz: float | None = Field(None, ge=0)
    temperature_c: float | None = None
    battery_fraction: float | None = Field(None, ge=0, le=1)
    num_samples: Count = Field(description="samples of its own data")
    sample_shape: tuple[Count, ...] = Field(max_length=8)
    label_counts: tuple[Count, ...] | None = Field(
        None,
        max_length=100_000,
        description="samples of each class; only where the device was told to publish them",
    )
    compute: ComputeProfile | None = None
    link: LinkProfile | None = None
    measured_at_unix_s: float = Field(description="of the facts that have no time of their own")


class PhaseSeconds(Message):
    """Seconds of one device in one local epoch, phase by phase."""

    distribute_s: float = Field(ge=0)
    forward_s: float = Field(ge=0)
    upload_s: float = Field(ge=0, description="smashed data and labels")
    server_s: float = Field(ge=0, description="of the server, for this device's mini-batch")
    download_s: float = Field(ge=0, description="gradients")
    backward_s: float = Field(ge=0, description="and the update")
    model_upload_s: float = Field(ge=0)


class Assignment(Message):
    """The job, as a device needs it: coordinator to device, once a run."""

    kind: Literal["assignment"] = "assignment"
    run: RunId
    network: str
    options: Options
    loss: str
    seed: Count
    batch_size: Positive
    held_out: float = Field(ge=0, lt=1, description="fraction of its data kept for evaluation")
    max_evaluation_samples: Positive
    num_classes: Positive | None = Field(description="labels are integers below this, if given")
    optimizer: OptimizerSpec
    carry_state: bool = Field(description="optimiser state travels with the device-side model")


class GraphsOffer(Message):
    """Graphs of the device side that a device without torch may ask for."""

    digest: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the manifest")
    num_bytes: Annotated[tuple[Positive, ...], AfterValidator(_bounded_graphs)] = Field(
        min_length=3, max_length=4, description="of the manifest, then of each graph that it names"
    )


class Join(Message):
    """Take part in a cluster's turn: coordinator to device, once a round."""

    kind: Literal["join"] = "join"
    run: RunId
    round: Round
    cluster: Small
    purpose: Literal["train", "train_locally", "evaluate"]
    cut: Small
    local_epochs: int = Field(ge=1, le=0xFFFF)
    learning_rate: float = Field(ge=0)
    graphs: GraphsOffer | None = Field(
        None, description="for a device whose engine runs graphs; none where it has no layers"
    )
    up_share_bps: float | None = Field(
        None, gt=0, description="bits per second to pace uploads to; none: as the link allows"
    )


class Stop(Message):
    """The run is over; the device waits for the next."""

    kind: Literal["stop"] = "stop"
    run: RunId


class Challenge(Message):
    """Somebody wants to own an id: whoever owns it answers with its status."""

    kind: Literal["challenge"] = "challenge"
    session: Token


class MeasureLink(Message):
    """Measure the link, through the broker, now: coordinator to one device at a time."""

    kind: Literal["measure_link"] = "measure_link"
    probe: RunId = Field(description="names this measurement; a repeat gets the same answer")
    budget_bytes: int = Field(ge=1_000, lt=2**63, description="bytes up and down together, at most")
    budget_s: float = Field(gt=0, le=60, description="seconds it may take, at most")


class Ready(Message):
    """Device to coordinator: the answer to an assignment."""

    kind: Literal["ready"] = "ready"
    run: RunId
    num_samples: Positive
    num_held_out: Count = Field(description="samples it evaluates on when asked")
    label_dtype: Literal["|u1", "<u2", "<i8", "<f4"]
    label_shape: LabelShape = Field(description="of one sample")


class Joined(Message):
    """Device to coordinator: the answer to a join."""

    kind: Literal["joined"] = "joined"
    run: RunId
    round: Round
    cluster: Small


class LinkMeasured(Message):
    """Device to coordinator: the answer to a measurement; its profile says the same."""

    kind: Literal["link_measured"] = "link_measured"
    probe: RunId
    link: LinkProfile | None
    reason: Words = Field("", description="why there is none")


class NeedGraphs(Message):
    """Device to coordinator: it cannot join yet, for it lacks the graphs that were offered."""

    kind: Literal["need_graphs"] = "need_graphs"
    run: RunId
    round: Round
    cluster: Small
    digest: str = Field(pattern="^[0-9a-f]{64}$")


class Refused(Message):
    """Device to coordinator: it cannot do what was asked, and why."""

    kind: Literal["refused"] = "refused"
    run: RunId
    reason: Words


class DeviceMetrics(Message):
    """What a cluster's turn cost this device."""

    run: RunId
    round: Round
    cluster: Small
    forward_s: float = Field(ge=0)
    backward_s: float = Field(ge=0)
    upload_s: float = Field(ge=0, description="until the broker had acknowledged every upload")
    waiting_s: float = Field(ge=0, description="between an upload and what came back")
    up_bytes: Count
    down_bytes: Count
    phases: PhaseSeconds = Field(
        description="means of this turn's local epochs, of the device's own phases; the server's "
        "are 0, and a download counts from its first message"
    )


class ClusterReport(Message):
    """One cluster of a plan."""

    devices: tuple[DeviceId, ...]
    shares: tuple[float, ...]
    predicted_s: float | None = Field(None, ge=0, description="seconds of its turn")


class OtherCut(Message):
    """What another cut is expected to cost."""

    cut_layer: str
    round_s: float | None = Field(description="none: it cannot be used")
    infeasible: Words = Field("", description="why it cannot be used")


class PlanAlternatives(Message):
    """What the round would have taken otherwise, by the same model."""

    best_other_cut: OtherCut | None
    random_clusters_s: float
    random_equal_shares_s: float = Field(
        description="the same clusters, a shared link divided evenly"
    )
    sorted_clusters_s: float
    cuts: tuple[OtherCut, ...] = Field((), description="all that were considered")


class PlanReport(Message):
    """The plan of a round, retained."""

    max_bytes: ClassVar[int] = MAX_REPORT_BYTES

    run: RunId
    round: Round
    method: str
    cut: int
    cut_layer: str
    clusters: tuple[ClusterReport, ...]
    left_out: dict[str, str] = Field(description="device id to reason")
    reason: str
    changed: str = Field("", description="how and why it differs from the plan before, if it does")
    assumed: dict[str, str] = Field({}, description="device id to what had to be assumed of it")
    predicted_s: float | None = Field(None, ge=0, description="seconds of the round")
    predicted: dict[DeviceId, PhaseSeconds] = Field(
        {}, description="seconds of each device in one local epoch"
    )
    alternatives: PlanAlternatives | None = None


class RoundReport(Message):
    """The last round, retained; also a line of the run's record."""

    max_bytes: ClassVar[int] = MAX_REPORT_BYTES

    run: RunId
    round: Round
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
    predicted_round_s: float | None = Field(None, ge=0, description="of round_s, by the plan")
    relative_error: float | None = Field(
        None, description="of the prediction; above 0 it was too long"
    )
    measured: dict[DeviceId, PhaseSeconds] = Field(
        {}, description="seconds of each device in one local epoch"
    )


AnyCommand = Assignment | Join | Stop | Challenge | MeasureLink
AnyReply = Ready | Joined | NeedGraphs | Refused | LinkMeasured

_COMMAND: TypeAdapter[AnyCommand] = TypeAdapter(Annotated[AnyCommand, Field(discriminator="kind")])
_REPLY: TypeAdapter[AnyReply] = TypeAdapter(Annotated[AnyReply, Field(discriminator="kind")])


def decode_command(payload: bytes | memoryview) -> AnyCommand:
    """Validate what the coordinator sent to a device."""
    try:
        return _COMMAND.validate_json(_checked(payload))
    except ValidationError as error:
        raise MalformedMessageError(f"not a command: {_first(error)}") from error


def decode_reply(payload: bytes | memoryview) -> AnyReply:
    """Validate what a device sent to the coordinator."""
    try:
        return _REPLY.validate_json(_checked(payload))
    except ValidationError as error:
        raise MalformedMessageError(f"not a reply: {_first(error)}") from error


def _checked(payload: bytes | memoryview, max_bytes: int = MAX_MESSAGE_BYTES) -> bytes:
    if len(payload) > max_bytes:
        raise MalformedMessageError(
            f"a control message of {len(payload)} bytes is longer than {max_bytes}"
        )
    return bytes(payload)


def _first(error: ValidationError) -> str:
    if error.error_count() > _MAX_NAMED_FAULTS:
        return f"{error.error_count()} faults"  # A list of all of them would be far larger.
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in found["loc"])
    return as_words(f"{place or 'message'}: {found['msg']}"[:_MAX_FAULT_LETTERS])
