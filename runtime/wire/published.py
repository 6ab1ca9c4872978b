"""What both ends publish for anyone to read: statuses, profiles, metrics, plans and rounds."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from runtime.wire.codecs.names import TurnCodecs
from runtime.wire.fields import (
    MAX_PROFILE_BYTES,
    MAX_REPORT_BYTES,
    MAX_SECONDS,
    Count,
    DeviceId,
    Message,
    Positive,
    Round,
    RunId,
    Seconds,
    Sha256,
    Small,
    Token,
    Words,
)
from runtime.wire.measures import ComputeProfile, LinkProfile, PhaseSeconds
from runtime.wire.names import ClassNames
from runtime.wire.run_control import SettingsReport


class DeviceStatus(Message):
    """Retained by each device and, with `offline`, its last will."""

    state: Literal["online", "offline"]
    session: Token = Field(description="token of this start of the agent")
    since_unix_s: float = Field(description="when this session began, seconds since 1970")
    engine: Token = ""
    version: Token = Field("", description="of its software, and of the wire: `0.3.0; wire 2`")
    process: Token = Field(
        "", description="the same for devices of one process: they share what one of them measures"
    )


class CoordinatorStatus(Message):
    """Retained by the coordinator and, with `offline`, its last will."""

    unsent_if_none: ClassVar[tuple[str, ...]] = ("classes",)

    state: Literal["online", "offline"]
    session: Token
    since_unix_s: float
    run: RunId = 0
    phase: Words = Field("", description="what it does or waits for, for people")
    classes: ClassNames | None = Field(
        None, description="of the run, in the order of the outputs, where they have names"
    )


class DeviceProfile(Message):
    """What a device is; retained, for planning and for watching."""

    max_bytes: ClassVar[int] = MAX_PROFILE_BYTES
    unsent_if_none: ClassVar[tuple[str, ...]] = (
        "label_names",
        "plugged_in",
        "settings",
        "training_samples",
    )

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
    plugged_in: bool | None = Field(None, description="whether its battery is being charged")
    num_samples: Count = Field(description="samples of its own data")
    training_samples: Positive | None = Field(
        None, description="those that it trains on by now, where its data grow during a run"
    )
    sample_shape: tuple[Count, ...] = Field(max_length=8)
    label_counts: tuple[Count, ...] | None = Field(
        None,
        max_length=100_000,
        description="samples of each class; only where the device was told to publish them",
    )
    label_names: ClassNames | None = Field(
        None, description="names of the classes that label_counts counts, where they have names"
    )
    min_cut: Token = Field(
        "", description="last of the layers that its owner has it run at least, or their number"
    )
    settings: SettingsReport | None = Field(
        None, description="what it made of those that are wanted of it, if any ever were"
    )
    compute: ComputeProfile | None = None
    link: LinkProfile | None = None
    measured_at_unix_s: float = Field(description="of the facts that have no time of their own")


def _believable(phases: PhaseSeconds) -> PhaseSeconds:
    """Bound what a device measured; a prediction may be longer."""
    longest_s = max(phases.by_phase.values())
    if longest_s > MAX_SECONDS:
        raise ValueError(f"a phase of {longest_s:.3g} s is longer than {MAX_SECONDS:.0e} s")
    return phases


class DeviceMetrics(Message):
    """What a cluster's turn cost this device."""

    unsent_if_none: ClassVar[tuple[str, ...]] = ("metered_j",)

    run: RunId
    round: Round
    cluster: Small
    forward_s: Seconds
    backward_s: Seconds
    upload_s: Seconds = Field(description="until the broker had acknowledged every upload")
    waiting_s: Seconds = Field(description="between an upload and what came back")
    up_bytes: Count
    down_bytes: Count
    metered_j: float | None = Field(
        None, ge=0, le=1e9, description="that its machine drew meanwhile, where that is metered"
    )
    phases: Annotated[PhaseSeconds, AfterValidator(_believable)] = Field(
        description="means of this turn's local epochs, of the device's own phases; the server's "
        "are 0, and a download counts from its first message"
    )


class ClusterReport(Message):
    """One cluster of a plan."""

    unsent_if_none: ClassVar[tuple[str, ...]] = (
        *("phi", "batch_sizes", "cuts", "cut_layers", "num_samples"),
    )

    devices: tuple[DeviceId, ...]
    shares: tuple[float, ...]
    predicted_s: float | None = Field(None, ge=0, description="seconds of its turn")
    micro_batches: Positive = Field(1, description="that each mini-batch goes in")
    phi: float | None = Field(
        None, ge=0, le=1, description="share of a mini-batch that is aggregated, if the plan chose"
    )
    batch_sizes: tuple[Positive, ...] | None = Field(
        None, description="samples of each device's mini-batch, where they were shared out"
    )
    cuts: tuple[Count, ...] | None = Field(
        None, description="layers on each device, where these differ; else the plan's cut"
    )
    cut_layers: tuple[str, ...] | None = Field(
        None, description="last layer on each device, where cuts differ"
    )
    num_samples: tuple[Count, ...] | None = Field(
        None,
        description="that each device trains on, where the data of some grow; 0: its data do not, "
        "and it trains on all that it began with",
    )


class OtherCut(Message):
    """What another cut is expected to cost."""

    cut_layer: str
    round_s: float | None = Field(description="none: it cannot be used")
    infeasible: Words = Field("", description="why it cannot be used")


class PlanAlternatives(Message):
    """What the round would have taken otherwise, by the same model.

    Also where a plan shares samples out, other clusters are those of equal mini-batches.
    """

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
    local_epochs: Positive = Field(1, description="of each cluster's turn")
    left_out: dict[str, str] = Field(description="device id to reason")
    reason: str
    changed: str = Field("", description="how and why it differs from the plan before, if it does")
    assumed: dict[str, str] = Field({}, description="device id to what had to be assumed of it")
    predicted_s: float | None = Field(None, ge=0, description="seconds of the round")
    lower_bound_s: float | None = Field(
        None, ge=0, description="seconds that no clusters of these sizes beat at this cut"
    )
    predicted: dict[DeviceId, PhaseSeconds] = Field(
        {}, description="seconds of each device in one local epoch"
    )
    predicted_j: dict[DeviceId, float] = Field(
        {}, description="joules of each device in the round, where its watts are known"
    )
    alternatives: PlanAlternatives | None = None
    codecs: TurnCodecs | None = Field(
        None, description="how tensors travel; none: all as they are, as float32"
    )


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
    metric: str = Field(
        "", max_length=64, description="which of the figures says what is better; none if empty"
    )
    test_metric: float | None = Field(None, description="the value of that one")
    lower_is_better: bool = Field(default=False, description="of the metric")
    test_figures: dict[str, float] = Field(
        default={}, description="all figures of the evaluation, by name"
    )
    evaluated_on: Literal["coordinator", "devices"] | None = None
    round_s: float
    elapsed_s: float = Field(description="since training began, evaluation included")
    up_bytes: int = Field(description="received from the devices in this round")
    down_bytes: int = Field(description="published for the devices in this round")
    lost: dict[str, str] = Field(default={}, description="device id to why it fell out")
    drawn_j: dict[DeviceId, float] = Field(
        default={}, description="joules of each device that was measured, waiting included"
    )
    dropped: dict[str, int] = Field(
        default={},
        description="device id to how many of its messages were late, repeated or unusable",
    )
    unknown_fields: dict[str, int] = Field(
        default={},
        description="device id to how many fields of its messages are of a newer version, and were "
        "ignored",
    )
    faults: dict[str, int] = Field(
        default={},
        description="what went wrong beside the training to how often it did; the run went on",
    )
    spoilt: Words = Field("", description="why its evaluation says that the model is, if so")
    went_back_to: tuple[Round, ...] = Field(
        (), description="rounds whose weights were taken again, because the model was spoilt"
    )
    predicted_round_s: float | None = Field(None, ge=0, description="of round_s, by the plan")
    relative_error: float | None = Field(
        None, description="of the prediction; above 0 it was too long"
    )
    measured: dict[DeviceId, PhaseSeconds] = Field(
        {}, description="seconds of each device in one local epoch"
    )


SampleShape = Annotated[tuple[Positive, ...], Field(max_length=8)]


class InferenceStatus(Message):
    """Which server half is served on a site, retained; with `offline` its last will."""

    max_bytes: ClassVar[int] = MAX_PROFILE_BYTES

    state: Literal["online", "offline"]
    session: Token
    since_unix_s: float
    network: Words
    cut: Words = Field(description="the last layer of the device half")
    pair: Sha256 = Field(description="which device half it belongs to")
    smashed_shape: SampleShape = Field(description="of one sample")
    output_shape: SampleShape = Field(description="of one sample")
