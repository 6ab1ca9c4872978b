"""Where the plans of a job come from: the planner, a hand, or a run before."""

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from edge_coordinator.planning.form import BatchSizes, Form
from profiles.power import POWER, Power, PowerClass, class_of_machine

EVERY_OTHER = "*"
"""The device id under which something holds for all that have none of their own."""
REPLAY = "replay:"
DEFAULT_CLUSTERS = 2
OWN_OF_MODE = {
    "auto": {"cut": "auto", "grouping": "planned"},
    "by_hand": {"cut": "pool1", "grouping": "by_id"},
}
"""What each mode of a plan takes where the job is silent; a replay reads neither."""


class Section(BaseModel):
    """A table of the job file; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_is_a_number(cls, given: object, info: ValidationInfo) -> object:
        """Refuse `rounds = true`, which would be 1; where it may be either it is left alone."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        kinds = {annotation, *get_args(annotation)}
        if isinstance(given, bool) and kinds & {int, float} and bool not in kinds:
            raise ValueError("input should be a number, not true or false")
        return given


class PowerSettings(Section):
    """What a device draws."""

    idle_w: float = Field(ge=0)
    compute_w: float = Field(ge=0, description="more, while one core computes")
    radio_w: float = Field(ge=0, description="more, while it sends or receives")


class PlanSettings(Section):
    """Clusters and cut: planned from what the devices measure, given by hand, or replayed."""

    mode: str = Field(
        "auto", description="auto (planned, but for what is given), by_hand, or replay:RUNDIR"
    )
    cut: str | int = Field(
        "auto",
        description="last layer on the device, or number of layers, or auto, or your own "
        "package.module:function; by hand: pool1",
    )
    cuts: dict[str, str | int] | Literal["by_device"] = Field(
        {},
        description="device id to its own cut, of those that cut at another layer than plan.cut; "
        "or by_device: each where its cluster's turn gets shortest, beginning at one cut for all",
    )
    grouping: str = Field(
        "planned",
        description="who trains with whom: planned, by_id, random or sorted (by speed), or your "
        "own package.module:function; by hand: by_id",
    )
    clusters: int | None = Field(None, ge=1, description="how many clusters; 2 if neither is given")
    cluster_size: int | None = Field(None, ge=1, description="or how many devices in each")
    cut_every: int = Field(5, ge=1, description="rounds between choices of a planned cut")
    medium: Literal["independent", "shared"] = Field(
        "independent", description="each device on its own line, or a cluster divides one"
    )
    shared_bps: float | None = Field(
        None, gt=0, description="all that a shared medium carries; measured if left out"
    )
    shares: Literal["allocated", "equal"] = Field(
        "allocated", description="of a shared medium; equal is there to compare with"
    )
    batch_sizes: BatchSizes = Field(
        "equal",
        description="of a cluster's devices: equal (training.batch_size), by_speed or by_data (all "
        "of a cluster's samples are shared out), or auto (by_speed if that shortens the round)",
    )
    balance_weight: float = Field(
        0.0, ge=0, description="how much slower a cluster of one-sided labels counts"
    )
    learn: bool = Field(
        default=True, description="correct predictions, and so plans, by measured seconds"
    )
    server_flop_per_s: float | None = Field(
        None, gt=0, description="speed of the server; measured if left out"
    )
    rest_below_battery: float = Field(
        0.15, ge=0, le=1, description="a device on a battery rests while less of it is left"
    )
    throttled_from_c: float = Field(
        80.0, description="from this heat on, a lower frequency counts as a slower device"
    )
    byte_budgets: dict[str, Annotated[int, Field(gt=0)]] = Field(
        {}, description="device id, or * for all others, to the bytes that it may send and receive"
    )
    power: dict[str, PowerClass | PowerSettings] = Field(
        {},
        description="device id, or * for all others, to a class (raspberry-pi-4, laptop) or to "
        "idle_w, compute_w and radio_w; by its processor if left out",
    )
    energy_weight: float = Field(
        0.0,
        ge=0,
        description="seconds that a joule counts as, where cuts, codecs, micro-batches and phi are "
        "chosen",
    )
    energy_budgets: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="device id, or * for all others, to the joules that it may draw in a run"
    )
    profile_patience_s: float = Field(
        5.0, ge=0, description="how long a plan waits for a profile that is not complete"
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.clusters is not None and self.cluster_size is not None:
            raise ValueError("give clusters or cluster_size, not both")
        if self.shared_bps is not None and self.medium != "shared":
            raise ValueError("shared_bps is of a shared medium; set medium to 'shared'")
        return self

    @field_validator("grouping")
    @classmethod
    def _is_a_form_or_own(cls, grouping: str) -> str:
        if grouping in get_args(Form) or ":" in grouping:
            return grouping
        raise ValueError(
            f"there are {', '.join(get_args(Form))}, and your own is package.module:function"
        )

    @field_validator("mode")
    @classmethod
    def _is_a_mode(cls, mode: str) -> str:
        if mode in OWN_OF_MODE or mode.removeprefix(REPLAY) not in ("", mode):
            return mode
        raise ValueError("input should be 'auto', 'by_hand' or 'replay:RUNDIR'")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_by_mode(cls, given: object) -> object:
        """What is not given is what the mode takes."""
        if isinstance(given, dict) and given.get("mode") == "by_hand":
            return {**OWN_OF_MODE["by_hand"], **given}
        return given

    @model_validator(mode="after")
    def _by_hand_is_by_hand(self) -> Self:
        wants = {"cut": self.chooses_cut, "grouping": self.grouping != "by_id"}
        wants["medium"] = self.medium != "independent"
        wants["batch_sizes"] = self.batch_sizes != "equal"
        wants["cuts"] = self.chooses_own_cuts
        key = next((key for key, is_planned in wants.items() if is_planned), None)
        if self.is_by_hand and key is not None:
            value = getattr(self, key)
            raise ValueError(f"by hand, {key} cannot be {value!r}: that is planned; take mode auto")
        return self

    @model_validator(mode="after")
    def _own_cuts_are_beside_a_cut(self) -> Self:
        if self.chooses_own_cuts and not self.chooses_cut:
            raise ValueError(
                f"cuts cannot be 'by_device' where plan.cut is given, as {self.cut!r}: give cuts "
                "of some devices, as {dev-1 = \"pool2\"}, or take plan.cut = 'auto'"
            )
        if self.cuts and self.chooses_cut and not self.chooses_own_cuts:
            raise ValueError(
                f"cuts are of some devices, and all others cut at plan.cut, which is {self.cut!r}: "
                "give the name of a layer there too"
            )
        return self

    @property
    def chooses_own_cuts(self) -> bool:
        """Whether each device's cut is chosen."""
        return self.cuts == "by_device"

    @property
    def own_cut(self) -> str:
        """The code of the user's own that chooses the cut; empty if it is none."""
        return self.cut if isinstance(self.cut, str) and ":" in self.cut else ""

    @property
    def chooses_cut(self) -> bool:
        """Whether the cut is not given, but chosen."""
        return self.cut == "auto" or bool(self.own_cut)

    @property
    def is_by_hand(self) -> bool:
        """Whether nothing about a round depends on what was measured."""
        return self.mode == "by_hand"

    def power_of(self, device: str, machine: str) -> Power:
        """What a device draws; where nothing is said of it, what such a processor does."""
        stated = self.power.get(device, self.power.get(EVERY_OTHER, class_of_machine(machine)))
        return POWER[stated] if isinstance(stated, str) else Power(**stated.model_dump())

    @property
    def replayed(self) -> Path | None:
        """The directory of the run whose plans are taken, if they are."""
        return Path(self.mode.removeprefix(REPLAY)) if self.mode.startswith(REPLAY) else None
