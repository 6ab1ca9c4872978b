"""Control messages: what the coordinator asks of a device, and what the device answers.

Validated once, where they enter (`runtime.wire.control`). Tensors are never here: they travel as
frames (`runtime.wire.frames`).
"""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from runtime.wire.chunks.questions import Holding, Inquire, NotInTurn, SendAgain
from runtime.wire.codecs.names import TurnCodecs
from runtime.wire.fields import (
    VECTORS,
    Count,
    LabelShape,
    Message,
    Options,
    Patterns,
    Positive,
    Round,
    RunId,
    Sha256,
    Small,
    Token,
    Words,
    named_by,
)
from runtime.wire.measures import LayerWork, LinkProfile
from runtime.wire.micro_batches import MOST_MICRO_BATCHES, MOST_SAMPLES
from runtime.wire.names import ClassNames, FeatureNames

MAX_GRAPHS_BYTES = 16_000_000
"""All graphs of a device side and their manifest: without weights they have some kB."""

MAX_LAYERS = 400
"""Of a network that is measured cut by cut; more would not fit a control message."""

MAX_FEATURES = 1000
"""That may be normalised; more would not fit a control message."""


class OptimizerSpec(Message):
    """An optimiser without its learning rate, which the coordinator gives for each cluster."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = Field(0.0, ge=0, lt=1, description="of sgd")
    nesterov: bool = Field(default=False, description="of sgd; needs momentum")
    weight_decay: float = Field(0.0, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1, description="of adam and adamw")
    beta2: float = Field(0.999, ge=0, lt=1, description="of adam and adamw")
    epsilon: float = Field(1e-8, gt=0, description="of adam and adamw")
    no_decay: Patterns = Field(
        (), description="names of parameters without weight decay; <vectors>: all of one axis"
    )

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the tensors that this optimiser keeps for each parameter, in wire order."""
        if self.name == "sgd":
            return ("momentum_buffer",) if self.momentum else ()
        return ("step", "exp_avg", "exp_avg_sq")

    def of_parameter(self, name: str, num_axes: int) -> "OptimizerSpec":
        """Give it as it is for one parameter: with weight decay or without."""
        exempt = named_by(self.no_decay, name) or (VECTORS in self.no_decay and num_axes <= 1)
        if not exempt or not self.weight_decay:
            return self
        return self.model_copy(update={"weight_decay": 0.0})


class LossOptions(Message):
    """What a cross entropy is weighed by."""

    class_weights: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(max_length=2000)] = ()
    label_smoothing: float = Field(0.0, ge=0, lt=1)


class Clip(Message):
    """To what norm a side's gradients are scaled down, where theirs is more."""

    norm: float = Field(gt=0)
    each: Literal["side", "tensor"]


class Normalisation(Message):
    """What each feature of a sample loses: its mean, and then its deviation as a factor."""

    mean: tuple[float, ...] = Field(min_length=1, max_length=MAX_FEATURES)
    deviation: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        min_length=1, max_length=MAX_FEATURES
    )
    axis: int = Field(ge=0, lt=8, description="of a sample, along which the features lie")


class Assignment(Message):
    """The job, as a device needs it: coordinator to device, once a run."""

    unsent_if_none: ClassVar[tuple[str, ...]] = (
        *("classes", "numbers_count_classes", "codecs"),
        *("normalisation", "frozen", "loss_options", "stop_digest"),
    )

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
    measure: bool = Field(
        default=True,
        description="the answer comes when its speed at this network is known and published; else "
        "that is measured between the steps of training",
    )
    deepest_cut: Count | None = Field(
        default=None, description="layers that a device may have to run at most, if less than all"
    )
    classes: ClassNames | None = Field(None, description="what labels count along, by names")
    numbers_count_classes: bool | None = Field(
        None, description="labels that are numbers count along the classes; else they do not fit"
    )
    codecs: Annotated[tuple[Token, ...], Field(max_length=64)] | None = Field(
        None, description="all that a turn may ask for; a device that lacks one takes no part"
    )
    normalisation: Normalisation | None = Field(None, description="of the inputs, if they need it")
    frozen: Patterns | None = Field(None, description="names of parameters that do not learn")
    loss_options: LossOptions | None = Field(None, description="of the loss cross_entropy")
    stop_digest: Sha256 | None = Field(
        None, description="of the secret that a stop of this run will tell, if any"
    )


def _bounded_graphs(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if sum(sizes) > MAX_GRAPHS_BYTES:
        raise ValueError(f"graphs have at most {MAX_GRAPHS_BYTES} bytes together")
    return sizes


class GraphsOffer(Message):
    """Graphs of the device side that a device without torch may ask for."""

    digest: Sha256 = Field(description="of the manifest")
    num_bytes: Annotated[tuple[Positive, ...], AfterValidator(_bounded_graphs)] = Field(
        min_length=3, max_length=4, description="of the manifest, then of each graph that it names"
    )


class FrozenOffer(Message):
    """Parameters of the device side that do not learn, which a device may ask for once."""

    digest: Sha256 = Field(description="of them, in order")
    num_bytes: Positive


class Join(Message):
    """Take part in a cluster's turn: coordinator to device, once a round."""

    unsent_if_none: ClassVar[tuple[str, ...]] = (
        *("codecs", "micro_batches", "batch_size", "clip", "frozen", "num_samples", "aggregated"),
    )

    kind: Literal["join"] = "join"
    run: RunId
    round: Round
    cluster: Small
    purpose: Literal["train", "train_locally", "evaluate", "measure"] = Field(
        description="measure: the answer comes when the time of a step is known and published"
    )
    cut: Small
    local_epochs: int = Field(ge=1, le=0xFFFF)
    learning_rate: float = Field(ge=0)
    graphs: GraphsOffer | None = Field(
        None, description="for a device whose engine runs graphs; none where it has no layers"
    )
    frozen: FrozenOffer | None = Field(
        None, description="what of the device side does not learn; it is in no device-side model"
    )
    up_share_bps: float | None = Field(
        None, gt=0, description="bits per second to pace uploads to; none: as the link allows"
    )
    layers: tuple[LayerWork, ...] = Field(
        (), max_length=MAX_LAYERS, description="to measure: all of the network, above the cut too"
    )
    codecs: TurnCodecs | None = Field(None, description="of the frames; none: all as they are")
    micro_batches: int | None = Field(
        None, ge=2, le=MOST_MICRO_BATCHES, description="of each mini-batch; none: it is whole"
    )
    batch_size: int | None = Field(
        None, ge=1, le=MOST_SAMPLES, description="of this device in this turn; none: the job's"
    )
    num_samples: Positive | None = Field(
        None, description="of its training part, the first so many; none: those it was ready with"
    )
    clip: Clip | None = Field(None, description="of the gradients; none: as they are")
    aggregated: int | None = Field(
        None, ge=1, le=MOST_SAMPLES, description="first samples whose gradient is the cluster's"
    )


class Stop(Message):
    """The run is over for the device, which waits for the next assignment.

    Whoever reads along cannot forge it: its secret is told here, and before only its digest.
    """

    unsent_if_none: ClassVar[tuple[str, ...]] = ("secret",)

    kind: Literal["stop"] = "stop"
    run: RunId
    secret: Token | None = Field(None, description="whose digest the assignment has")


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

    unsent_if_none: ClassVar[tuple[str, ...]] = ("class_names", "feature_names", "grows")

    kind: Literal["ready"] = "ready"
    run: RunId
    num_samples: Positive
    num_held_out: Count = Field(description="samples it evaluates on when asked")
    label_dtype: Literal["|u1", "<u2", "<i8", "<f4"]
    label_shape: LabelShape = Field(description="of one sample")
    class_names: ClassNames | None = Field(
        None, description="of its own labels, where they have names and the assignment gave none"
    )
    feature_names: FeatureNames | None = Field(None, description="of its inputs, if they have any")
    grows: bool | None = Field(None, description="its samples become more during a run")


class Preparing(Message):
    """Device to coordinator: it is at the assignment, or waits for others of its process."""

    kind: Literal["preparing"] = "preparing"
    run: RunId


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
    at_best: LinkProfile | None = Field(
        None, description="what a measurement that failed has shown to be possible, if anything"
    )


class NeedGraphs(Message):
    """Device to coordinator: it cannot join yet, for it lacks something that it was offered."""

    kind: Literal["need_graphs"] = "need_graphs"
    run: RunId
    round: Round
    cluster: Small
    digest: Sha256


class Refused(Message):
    """Device to coordinator: it cannot do what was asked, and why."""

    kind: Literal["refused"] = "refused"
    run: RunId
    reason: Words


AnyCommand = Assignment | Join | Stop | Challenge | MeasureLink | Inquire | SendAgain
AnyReply = Ready | Preparing | Joined | NeedGraphs | NotInTurn | Refused | LinkMeasured | Holding
