"""The job file: one TOML file says all about a run, and every key has a sensible default."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from edge_coordinator.job.codec_settings import CodecSettings
from edge_coordinator.job.data_settings import DataSettings
from edge_coordinator.job.plan_settings import PlanSettings, Section
from edge_coordinator.job.standing import Keep
from edge_coordinator.job.training_settings import TrainingSettings
from runtime.offered import (
    DEFAULT_CHUNK_BYTES,
    LEAST_CHUNK_BYTES,
    MOST_CHUNK_BYTES,
    is_factory,
)
from runtime.wire.fields import Options, Patterns

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class ModelSettings(Section):
    """The network."""

    name: str = Field("lenet", description="built-in name, or package.module:factory")
    options: Options = Field({}, description="arguments of the factory")
    start: Path | None = Field(
        None,
        description="weights to begin with: a state_dict (.pt, .pth), .safetensors, or a run's "
        "directory; the seed draws them if left out",
    )
    start_except: Patterns = Field(
        (), description="names of tensors that the seed draws all the same, as fc.*"
    )
    start_digest: str | None = Field(
        None, description="of the file; a run writes it down, and another file is refused"
    )
    freeze: Patterns = Field((), description="names of parameters that do not learn, as features.*")


_TAG = "[A-Za-z0-9][A-Za-z0-9_.:-]*=[A-Za-z0-9][A-Za-z0-9_.:-]*"


class DeviceSettings(Section):
    """Which devices take part."""

    count: int = Field(6, ge=1, le=10_000, description="local devices, or devices to wait for")
    exclude: tuple[Name, ...] = Field((), description="device ids that never take part")
    where: str = Field(
        "",
        pattern=f"^$|^{_TAG}(,{_TAG})*$",
        description="tags that a device of a broker must have to take part, as room=lab,kind=pi",
    )
    patience_s: float = Field(
        60.0,
        gt=0,
        description="margin of an answer that a device has never given before, and the silence "
        "after which it is given up",
    )
    margin_s: float = Field(
        15.0, gt=0, description="least seconds beyond those expected before a device is late"
    )
    cluster_quorum: float = Field(
        0.5, ge=0, le=1, description="fraction of a cluster without which its turn is undone"
    )
    round_quorum: float = Field(
        0.5, ge=0, le=1, description="fraction of a round's devices without which it is tried again"
    )
    max_unusable: int = Field(
        100, ge=1, description="messages that can never be right before a device is excluded"
    )
    bounds: bool = Field(
        default=True, description="a device that sends what is far out of the ordinary is excluded"
    )
    excluded_rounds: int = Field(
        10, ge=1, description="for so many rounds; twice as many each time it is caught again"
    )
    engine: Literal["torch", "onnxruntime", "mixed"] = Field(
        "torch", description="local mode: what computes on the devices; mixed: they alternate"
    )
    processes: int | None = Field(
        None,
        ge=1,
        description="local mode: processes of the devices; one a core if left out",
    )
    scenario: str | None = Field(
        None,
        description="local mode: emulated devices and links: uniform, mixed, one-straggler, "
        "fading or a file; simulations also: paper, heterogeneous; none if left out",
    )
    spread: float | None = Field(
        None,
        ge=0,
        le=3,
        description="simulations: deviation of speeds and rates between rounds; the scenario's own "
        "if left out",
    )


class EvaluationSettings(Section):
    """When the joint network is evaluated."""

    every: int = Field(1, ge=1, description="rounds between evaluations; the last is always one")
    max_samples: int | None = Field(
        None, ge=1, description="at most so many of the test set, evenly spaced; all if left out"
    )
    metric: str = Field(
        "auto",
        description="which of two rounds is better: accuracy, f1, iou, exact, r2, mae, or your own "
        "package.module:function; auto is the task's first",
    )
    target: float | None = Field(
        None, description="stop once the metric is as good as this; never if left out"
    )
    target_accuracy: float | None = Field(
        None, gt=0, le=1, description="stop once the test accuracy is this high; never if left out"
    )
    patience: int | None = Field(
        None, ge=1, description="stop after so many evaluations without a gain; never if left out"
    )
    stop: str | None = Field(
        None,
        pattern=":",
        description="a function of your own that says when to stop, package.module:function",
    )
    least_gain: float = Field(
        0.0, ge=0, description="a gain is more than this, of the metric, or else of the test loss"
    )
    keep: Keep = Field(
        "best", description="which round the run's model is of: the best evaluated, or the last"
    )

    spoilt_evaluations: int = Field(
        3, ge=1, description="in a row, after which a run goes back to an older checkpoint"
    )
    most_returns: int = Field(3, ge=0, description="how often a run goes back by itself")
    sound_checkpoints: int = Field(
        3, ge=0, le=10, description="kept to go back to, of rounds further and further apart"
    )

    @property
    def may_stop_early(self) -> bool:
        """Whether a run may end before its last round."""
        targets = (self.target, self.target_accuracy)
        others = (self.patience, self.stop)
        return targets != (None, None) or others != (None, None)


class BrokerSettings(Section):
    """The MQTT broker."""

    url: str | None = Field(
        None, description="mqtt://[user:password@]host[:port], mqtts, ws or wss://…"
    )
    cafile: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None
    local: Literal["auto", "mosquitto", "amqtt"] = Field(
        "auto", description="local mode: the broker to start"
    )
    port: int | None = Field(
        None, ge=1, le=65_535, description="local mode: the port of that broker; a free one"
    )
    chunk_bytes: int = Field(
        DEFAULT_CHUNK_BYTES,
        ge=LEAST_CHUNK_BYTES,
        le=MOST_CHUNK_BYTES,
        description="tensors travel in chunks of this at most; a thin link has smaller ones",
    )


class JobSettings(Section):
    """A whole job."""

    site: Name = Field(
        "default", description="part of every topic; jobs of one broker differ in it"
    )
    seed: int = Field(0, ge=0, lt=2**32)
    server_threads: int = Field(
        1, ge=1, le=1024, description="threads of the server side in training"
    )
    output: Path = Field(Path("runs"), description="folder in which the run directory is made")
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    codec: CodecSettings = CodecSettings()
    plan: PlanSettings = PlanSettings()
    devices: DeviceSettings = DeviceSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    broker: BrokerSettings = BrokerSettings()

    @model_validator(mode="after")
    def _aggregates_equal_parts(self) -> Self:
        training, sizes = self.training, self.plan.batch_sizes
        if training.given_phi and training.micro_batches not in (1, "auto") and sizes != "equal":
            raise ValueError(
                f"training.phi = {training.phi} with micro_batches = {training.micro_batches} "
                f"aggregates micro-batches of one size, and plan.batch_sizes = {sizes!r} has them "
                "differ: take phi 0 or 'auto', micro_batches 1 or 'auto', or batch_sizes 'equal'"
            )
        return self


def device_names(count: int) -> list[str]:
    """Ids of local devices, in an order that is also their numbers' order."""
    width = len(str(count - 1))
    return [f"dev-{index:0{width}}" for index in range(count)]


def own_code(settings: JobSettings) -> list[str]:
    """Networks, losses, data sources and all else that is named as `package.module:name`."""
    training, evaluation = settings.training, settings.evaluation
    of_training = [settings.model.name, training.loss, training.aggregation]
    of_plans = [settings.plan.grouping, settings.plan.own_cut]
    named = [*of_training, evaluation.metric, evaluation.stop or "", *of_plans]
    data = (settings.data.source, settings.data.test)
    return [name for name in named if ":" in name] + [name for name in data if is_factory(name)]


def code_flags(settings: JobSettings) -> list[str]:
    """Flags that let another program run this job's own code."""
    return [word for name in own_code(settings) for word in ("--allow-code", name)]
