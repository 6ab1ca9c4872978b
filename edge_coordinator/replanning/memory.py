"""What a run has learned, as its checkpoint keeps it: so that a resumed run goes on knowing it.

A checkpoint may be of a version whose lessons had no bounds. What cannot be right in it is
repaired or forgotten as it is read, since nobody else would: a wrong lesson outlives every restart.
"""

import logging
import math
from collections.abc import Mapping
from typing import Annotated, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from edge_coordinator.devices.deadlines import Answer, Usual
from edge_coordinator.devices.stragglers import Record
from edge_coordinator.planning.cuts.cut_layer import CutChoice
from edge_coordinator.planning.plan import Plan
from edge_coordinator.planning.unplanned import unpredicted
from edge_coordinator.replanning.conditions import DeviceEnergy, DeviceTraffic
from edge_coordinator.replanning.figure import Figure
from edge_coordinator.replanning.suspensions import Suspension
from profiles.corrections import Corrections
from profiles.device import ComputeState, DeviceState
from profiles.link import LinkState
from profiles.phases import Phase

log = logging.getLogger(__name__)


class _MemoryPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


def _bounded_corrections(values: list[list[list[float]]]) -> list[list[list[float]]]:
    """Bound each value; one of another shape is of another set of phases."""
    shape = (2, len(Phase))
    known = [np.array(value) for value in values if tuple(map(len, value)) == (shape[1],) * 2]
    bounded = [Corrections.bounded(scale=scale, added_s=added_s) for scale, added_s in known]
    return [[each.scale.tolist(), each.added_s.tolist()] for each in bounded]


def _finite(values: list[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _not_negative(values: list[float]) -> list[float]:
    return [max(value, 0.0) for value in _finite(values)]


def _are_seconds(*values: float | None) -> bool:
    return all(value is None or (math.isfinite(value) and value >= 0) for value in values)


def _sound_choice(choice: CutChoice | None) -> CutChoice | None:
    """Forget a choice that rests on impossible prices: the cut is chosen anew."""
    prices = choice.prices if choice else ()
    return choice if _are_seconds(*(price.expected_s for price in prices)) else None


def _sound_plan(plan: Plan | None) -> Plan | None:
    """Keep the cut and the clusters of a plan whose predictions are impossible, not these."""
    if plan is None or _are_seconds(plan.predicted_s, *(c.predicted_s for c in plan.clusters)):
        return plan
    return unpredicted(plan)


def _sound_times(times: dict[str, dict[Answer, Usual]]) -> dict[str, dict[Answer, Usual]]:
    """Forget answers that took no possible time; then the device is waited for patiently."""
    return {
        device: {
            answer: usual
            for answer, usual in answers.items()
            if _are_seconds(usual.seconds, usual.deviation_s)
        }
        for device, answers in times.items()
    }


class CorrectionsMemory(_MemoryPart):
    """What finished rounds taught; [value, scale or added, phase] of each device."""

    corrections: dict[str, Annotated[list[list[list[float]]], AfterValidator(_bounded_corrections)]]
    cluster_s: Annotated[list[float], AfterValidator(_finite)]
    round_s: Annotated[list[float], AfterValidator(_not_negative)]
    num_rounds: int
    slower: dict[str, float]


class PastState(_MemoryPart):
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
        return DeviceState(
            device=device,
            num_samples=self.num_samples,
            free_memory_bytes=np.inf,
            compute=ComputeState.of_lists(forward_s=self.forward_s, backward_s=self.backward_s),
            link=self.link,
            label_counts=self.label_counts,
        )


class CutMemory(_MemoryPart):
    """Which cut holds, since when, and the states it rests on."""

    choice: Annotated[CutChoice | None, AfterValidator(_sound_choice)]
    chosen_in: int
    lessons: int
    figures: dict[str, dict[str, Figure]]
    history: list[dict[str, PastState]]


class PlannerMemory(_MemoryPart):
    """What the planner knows from the rounds before."""

    experience: CorrectionsMemory
    cut: CutMemory
    figures: dict[str, dict[str, Figure]]
    before: Annotated[Plan | None, AfterValidator(_sound_plan)]
    traffic: dict[str, DeviceTraffic] = {}
    energy: dict[str, DeviceEnergy] = {}


class SimulatedMemory(_MemoryPart):
    """What a simulation's planner knows from the rounds before; its devices never err."""

    cut: CutMemory
    before: int | None
    """The cut of the last plan, in the cost table."""
    last: Annotated[Plan | None, AfterValidator(_sound_plan)] = None
    """To go on by, where there is no new one; its cut is in the cost table."""


class TrustMemory(_MemoryPart):
    """What bounds and exclusions rest on."""

    largest: dict[str, dict[str, float]] = {}
    """By what was sent and device, as a logarithm."""
    cut: int | None = None
    own_cuts: dict[str, int] = {}
    """Of devices that cut at another layer."""
    suspensions: dict[str, Suspension] = {}


class RunMemory(_MemoryPart):
    """All that a run has learned of its devices."""

    answer_times: Annotated[dict[str, dict[Answer, Usual]], AfterValidator(_sound_times)] = {}
    num_tries: int = 0
    attendance: dict[str, Record] = {}
    planner: PlannerMemory | None = None
    simulated: SimulatedMemory | None = None
    trust: TrustMemory = TrustMemory()

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
