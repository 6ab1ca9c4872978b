"""What a run has learned, as its checkpoint keeps it: so that a resumed run goes on knowing it."""

import logging
from collections.abc import Mapping
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from edge_coordinator.figure import Figure
from edge_coordinator.planning.attendance import Record
from edge_coordinator.planning.cut_layer import CutChoice
from edge_coordinator.planning.deadline import Answer, Usual
from edge_coordinator.planning.plan import Plan
from profiles.device import ComputeState, DeviceState
from profiles.link import LinkState

log = logging.getLogger(__name__)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class ExperienceMemory(_Part):
    """What finished rounds taught; [value, scale or added, phase] of each device."""

    corrections: dict[str, list[list[list[float]]]]
    cluster_s: list[float]
    round_s: list[float]
    num_rounds: int
    slower: dict[str, float]


class PastState(_Part):
    """A device as it was when a cut was chosen."""

    num_samples: int
    forward_s: list[float] | None
    backward_s: list[float] | None
    link: LinkState | None
    label_counts: tuple[int, ...] | None

    @classmethod
    def of(cls, state: DeviceState) -> Self:
        """Take down all that is not renewed whenever it is used."""
        compute = state.compute
        return cls(
            num_samples=state.num_samples,
            forward_s=compute.forward_s.tolist() if compute else None,
            backward_s=compute.backward_s.tolist() if compute else None,
            link=state.link,
            label_counts=state.label_counts,
        )

    def state(self, device: str) -> DeviceState:
        """Give it back."""
        known = self.forward_s is not None and self.backward_s is not None
        compute = ComputeState(np.array(self.forward_s), np.array(self.backward_s))
        return DeviceState(
            device=device,
            num_samples=self.num_samples,
            free_memory_bytes=np.inf,
            compute=compute if known else None,
            link=self.link,
            label_counts=self.label_counts,
        )


class CutMemory(_Part):
    """Which cut holds, since when, and the states it rests on."""

    choice: CutChoice | None
    chosen_in: int
    lessons: int
    figures: dict[str, dict[str, Figure]]
    history: list[dict[str, PastState]]


class PlannerMemory(_Part):
    """What the planner knows from the rounds before."""

    experience: ExperienceMemory
    cut: CutMemory
    figures: dict[str, dict[str, Figure]]
    before: Plan | None


class SimulatedMemory(_Part):
    """What a simulation's planner knows from the rounds before; its devices never err."""

    cut: CutMemory
    before: int | None
    """The cut of the last plan, in the cost table."""


class RunMemory(_Part):
    """All that a run has learned of its devices."""

    answer_times: dict[str, dict[Answer, Usual]] = {}
    num_tries: int = 0
    attendance: dict[str, Record] = {}
    planner: PlannerMemory | None = None
    simulated: SimulatedMemory | None = None

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read it back; what another version wrote is forgotten, and that is said."""
        if not text:
            return cls()
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            log.warning("what the run had learned of its devices cannot be read; it begins anew")
            return cls()

    def encode(self) -> str:
        """Write it down."""
        return self.model_dump_json()


def copy_figures(figures: Mapping[str, Mapping[str, Figure]]) -> dict[str, dict[str, Figure]]:
    """Copy figures into plain dictionaries."""
    return {device: dict(each) for device, each in figures.items()}
