"""The section of a job that says how both sides of the network learn."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from edge_coordinator.job.plan_settings import Section
from edge_coordinator.planning.form import Method
from edge_coordinator.training.aggregation_name import AggregationName
from edge_coordinator.training.schedule import ScheduleName
from runtime.wire.commands import Clip, LossOptions, OptimizerSpec
from runtime.wire.micro_batches import MOST_MICRO_BATCHES, MOST_SAMPLES

LOSSES = "cross_entropy, mse, l1, binary_cross_entropy or package.module:function"


_ONE = re.compile(r"auto|cpu|mps|cuda(:\d{1,2})?")
_OF_SEVERAL = re.compile(r"cpu|cuda:\d{1,2}")


def _why_no_group(names: Sequence[str]) -> str:
    """Say why these devices do not compute together; nothing if they do."""
    cuda = [name for name in names if name != "cpu"]
    if cuda and len(cuda) < len(names):
        return "mixes kinds, of which the slowest would set the pace: take all cuda or all cpu"
    if len(set(cuda)) < len(cuda):
        return "names a device twice, and its memory and cores are there once: take each once"
    return ""


class OptimizerSettings(OptimizerSpec):
    """An optimiser and its learning rate."""

    learning_rate: float = Field(0.03, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")

    def spec(self) -> OptimizerSpec:
        """Give it without the learning rate, as devices get it."""
        fields = self.model_dump(exclude={"learning_rate"})
        return OptimizerSpec.model_validate(fields)


class DeviceOptimizerSettings(OptimizerSpec):
    """The devices' optimiser; without a learning rate, |K_m| times the server's."""

    learning_rate: float | None = Field(None, gt=0)


class ClipSettings(Section):
    """The most that the norm of a step's gradients may be."""

    norm: float | None = Field(None, gt=0, description="never clipped if left out")
    each: Literal["side", "tensor"] = Field(
        "side", description="norm of all gradients of a side, or of each tensor by itself"
    )

    def of_server(self) -> Clip | None:
        """Give what the server side's gradients are clipped to."""
        return None if self.norm is None else Clip(norm=self.norm, each=self.each)

    def of_device(self, num_parts: float) -> Clip | None:
        """Give what a device's are, where they are one of so many parts of a cluster's mean."""
        return None if self.norm is None else Clip(norm=self.norm / num_parts, each=self.each)


class ScheduleSettings(Section):
    """How learning rates change over the rounds."""

    name: ScheduleName = "cosine"
    every: int = Field(10, ge=1, description="rounds, of step and exponential")
    factor: float = Field(
        0.02, ge=0, le=1, description="of step and exponential (0.5); of cosine what it ends at"
    )
    warm_up: float = Field(
        0.1,
        ge=0,
        le=1,
        description="fraction of the rounds, the first, in which the rates rise in equal steps",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_by_name(cls, given: object) -> object:
        """Halve the rates at each step, if no other factor is given."""
        if isinstance(given, dict) and given.get("name") in ("step", "exponential"):
            return {"factor": 0.5, **given}
        return given


class TrainingSettings(Section):
    """The algorithm's own numbers."""

    method: Method = Field(
        "cpsl", description="cpsl, sl (one by one), fl (federated), cl (central)"
    )
    rounds: int = Field(80, ge=1, le=1_000_000)
    local_epochs: int = Field(3, ge=1, le=10_000, description="mini-batches in a cluster's turn")
    batch_size: int = Field(
        16, ge=1, le=MOST_SAMPLES, description="samples in a device's mini-batch"
    )
    micro_batches: Annotated[int, Field(ge=1, le=MOST_MICRO_BATCHES)] | Literal["auto"] = Field(
        1,
        description="that a mini-batch goes in, so that computing and sending overlap; auto: as "
        "many as the plan expects to gain by",
    )
    phi: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        0.0,
        description="share of a mini-batch whose last-layer gradients are aggregated over the "
        "devices of a cluster (EPSL): one gradient for all of them; 0: none; auto: for each "
        "cluster what its plan expects to gain by, up to max_phi",
    )
    max_phi: float = Field(
        0.25, ge=0, le=1, description="auto: the most of a mini-batch that is aggregated"
    )
    loss: str = Field("cross_entropy", description=LOSSES)
    class_weights: Literal["balanced"] | tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (),
        description="of cross_entropy: what a sample of each class counts, in the order of the "
        "outputs; balanced: the rarer the more; all the same if left out",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="of cross_entropy: the part of a label that all classes share"
    )
    server_optimizer: OptimizerSettings = OptimizerSettings()
    device_optimizer: DeviceOptimizerSettings | None = Field(
        None, description="the server's kind, at |K_m| times its rate, if left out"
    )
    carry_optimizer_state: bool = Field(
        default=True,
        description="the device side's momentum travels with its weights and is averaged",
    )
    aggregation: str = Field(
        "mean",
        description="of the device-side models: mean, clipped, trimmed_mean, median or "
        "package.module:function",
    )
    trim: float = Field(
        0.2, gt=0, lt=0.5, description="fraction that trimmed_mean leaves out at each end"
    )
    schedule: ScheduleSettings = ScheduleSettings()
    device_schedule: ScheduleSettings | None = Field(
        None, description="of the devices' rate; that of both sides if left out"
    )
    clip: ClipSettings = ClipSettings()
    server_device: str | tuple[str, ...] = Field(
        "auto",
        description="what the server side computes on: cpu, cuda, cuda:N or mps; auto: the first "
        "there is of cuda, mps and cpu; a list, as ['cuda:0', 'cuda:1']: several at once, which "
        "share out a cluster's devices",
    )
    autocast: Literal["none", "bfloat16", "float16"] = Field(
        "none", description="what the server side's products are computed in, where not in float32"
    )
    compile: bool = Field(
        default=False, description="have torch.compile compile the server side, if it can"
    )

    @field_validator("server_device")
    @classmethod
    def _is_known_device(cls, given: str | tuple[str, ...]) -> str | tuple[str, ...]:
        names = (given,) if isinstance(given, str) else given
        allowed = _ONE if len(names) == 1 else _OF_SEVERAL
        if not names or not all(allowed.fullmatch(name) for name in names):
            raise ValueError(
                "it is cpu, cuda, cuda:N, mps or auto, or a list: of cpu as often as there are to "
                "be processes, or of several cuda:N"
            )
        return given

    @field_validator("aggregation")
    @classmethod
    def _is_offered_or_own(cls, name: str) -> str:
        if name in get_args(AggregationName) or ":" in name:
            return name
        offered = ", ".join(get_args(AggregationName))
        raise ValueError(f"there are {offered}, and your own is package.module:function")

    @property
    def server_devices(self) -> tuple[str, ...]:
        """What the server side computes on: one, or several at once."""
        given = self.server_device
        return (given,) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _shares_out_what_can_be(self) -> Self:
        names = self.server_devices
        if len(names) > 1 and (why := self._why_not_shared_out(names)):
            raise ValueError(f"server_device = {list(names)} {why}, or one device, as {names[0]!r}")
        return self

    def _why_not_shared_out(self, names: Sequence[str]) -> str:
        """Say what of this section several devices cannot do; nothing if they can."""
        if why := _why_no_group(names):
            return why
        if self.method in ("fl", "sl"):
            what = "no step is the server's" if self.method == "fl" else "each step has one"
            return (
                f"shares out the devices of a cluster's step, and with method {self.method!r} "
                f"{what}: take 'cpsl' or 'cl'"
            )
        if self.micro_batches != 1:
            return (
                f"shares out whole mini-batches, and micro_batches = {self.micro_batches!r} has "
                "each part computed as it comes: take micro_batches = 1"
            )
        if self.phi:
            return (
                f"shares out samples by device, and phi = {self.phi} takes means over devices: "
                "take phi = 0"
            )
        if self.compile:
            return "runs layers that torch has not compiled: take compile = false"
        return ""

    @model_validator(mode="after")
    def _aggregates_on_the_server(self) -> Self:
        if self.phi and self.method == "fl":
            raise ValueError(
                f"phi = {self.phi} aggregates gradients on the server, and with method 'fl' "
                "none are computed there: take phi = 0"
            )
        return self

    @model_validator(mode="after")
    def _weighs_a_cross_entropy(self) -> Self:
        if self.class_weights and not any(self.class_weights):
            raise ValueError("class_weights are all 0: no sample would count")
        if self.loss_options() is not None and self.loss != "cross_entropy":
            key = "class_weights" if self.class_weights else "label_smoothing"
            raise ValueError(f"{key} is of the loss cross_entropy, and the loss is {self.loss}")
        return self

    def loss_options(self) -> LossOptions | None:
        """What the loss is weighed by; None if by nothing."""
        weights = () if self.class_weights == "balanced" else self.class_weights
        if not self.class_weights and not self.label_smoothing:
            return None
        return LossOptions(class_weights=weights, label_smoothing=self.label_smoothing)

    @property
    def phis(self) -> tuple[float, ...]:
        """What plans choose phi from: none, quarters, and the most there may be."""
        if self.phi != "auto":
            return ()
        quarters = (quarter / 4 for quarter in range(4))
        return (*(each for each in quarters if each < self.max_phi), self.max_phi)

    @property
    def given_phi(self) -> float:
        """That of all rounds; 0 where plans choose it."""
        return 0.0 if self.phi == "auto" else self.phi

    def device_spec(self) -> OptimizerSpec:
        """The devices' optimiser without its learning rate."""
        if self.device_optimizer is None:
            return self.server_optimizer.spec()
        fields = self.device_optimizer.model_dump(exclude={"learning_rate"})
        return OptimizerSpec.model_validate(fields)
