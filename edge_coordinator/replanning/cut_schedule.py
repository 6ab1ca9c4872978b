"""Both timescales of planning: clusters in every round, the cut every few, over recent states."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot
from types import MappingProxyType

import numpy as np

from edge_coordinator.formatting import some
from edge_coordinator.planning.clusters.clustering import CUT_SCHEDULE
from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.cuts.by_device import choose_cuts
from edge_coordinator.planning.cuts.cut_layer import CutChoice, choose_cut
from edge_coordinator.planning.fleet import Fleet, Workload, leave_out
from edge_coordinator.planning.plan import Plan
from edge_coordinator.planning.planner import plan_round
from edge_coordinator.replanning.device_states import KnownDevice
from edge_coordinator.replanning.figure import Figure
from edge_coordinator.replanning.memory import CutMemory, PastState, copy_figures
from profiles.device import DeviceState
from runtime.seeding import Purpose

NUM_STATES = 8
"""States of the devices, the present one included, over which a cut is averaged."""
MAX_STACKED_DEVICES = 2000
"""Fewer states are taken of so many devices that this would be exceeded: a plan may not dawdle."""
FIRST_LESSONS = 2
"""A choice that rests on fewer measured rounds is made again when there are more."""
MANY_DEVIATIONS = 3.0
LEAST_CHANGE = 0.25
"""A smaller relative change is no reason to cut anew, however steady the figure was."""

Figures = Mapping[str, Mapping[str, Figure]]
"""Device id to what was measured of it."""


@dataclass(frozen=True)
class CutSchedule:
    """The cut that holds, and why it was chosen in this round (nothing if it was not)."""

    choice: CutChoice
    why: str


class CutChooser:
    """Keeps a cut for some rounds, unless a device has changed more than its deviation explains."""

    def __init__(self, *, every: int) -> None:
        self._every = every
        self.asked = ""
        """Why the next choice is made at once, if somebody asked for it."""
        self._choice: CutChoice | None = None
        self._chosen_in = 0
        self._lessons = 0
        self._figures: Figures = {}
        self._history: deque[dict[str, DeviceState]] = deque(maxlen=NUM_STATES)

    def choose(
        self,
        known: Sequence[KnownDevice],
        workload: Workload,
        *,
        round_: int,
        lessons: int,
        grouping: Grouping,
        generator: np.random.Generator,
    ) -> CutSchedule:
        """Choose the cut of this round; InfeasiblePlanError if no cut fits the devices.

        `lessons` counts the rounds that predictions have been corrected by.
        """
        figures = {each.state.device: each.figures for each in known}
        drifts = drifted(self._figures, figures)
        if drifts:
            self._history.clear()  # Those were states of another world.
        self._history.append({each.state.device: each.state for each in known})
        while len(self._history) > num_stacked(len(known)):
            self._history.popleft()  # They would go into every checkpoint, and into no choice.
        impossible = self._why_impossible(known, workload, grouping)
        why = self.asked or self._why_now(round_, lessons, drifts, impossible)
        self.asked = ""
        if self._choice is None or why:
            self._choice = self._chosen(known, workload, grouping, generator)
            self._chosen_in, self._lessons, self._figures = round_, lessons, figures
        return CutSchedule(self._choice, why)

    def remember(self) -> CutMemory:
        """Give what a checkpoint keeps."""
        return CutMemory(
            choice=self._choice,
            chosen_in=self._chosen_in,
            lessons=self._lessons,
            figures=copy_figures(self._figures),
            history=[
                {device: PastState.of(state) for device, state in past.items()}
                for past in self._history
            ],
        )

    def recall(self, memory: CutMemory) -> None:
        """Take over what a checkpoint kept."""
        self._choice, self._chosen_in = memory.choice, memory.chosen_in
        self._lessons, self._figures = memory.lessons, memory.figures
        for past in memory.history:
            self._history.append({device: each.state(device) for device, each in past.items()})

    def _why_impossible(
        self, known: Sequence[KnownDevice], workload: Workload, grouping: Grouping
    ) -> str:
        """Say why the choice cannot be any more; nothing if it can."""
        choice = self._choice
        if choice is None or not grouping.cuts_by_device:
            return workload.refused_cuts.get(choice.cut, "") if choice else ""
        workload, states = workload.of_each_device(), [each.state for each in known]
        cuts = [choice.cut, *choice.own.values()]
        ever = leave_out(
            states, workload, candidates=grouping.candidate_cuts(workload.cuts.num_layers)
        )
        now = leave_out(states, workload, candidates=[choice.cut], own_cuts=choice.own)
        out = [f"{device} {why}" for device, why in now.items() if device not in ever]
        return next(
            (workload.refused_cuts[c] for c in cuts if c in workload.refused_cuts), some(out)
        )

    def _why_now(self, round_: int, lessons: int, drifts: Sequence[str], impossible: str) -> str:
        if self._choice is None:
            return "the cut is chosen for the first time"
        if impossible:
            return f"the cut is chosen again at once: {impossible}"
        if drifts:
            return f"the cut is chosen again at once: {some(drifts)}"
        if self._lessons < min(lessons, FIRST_LESSONS):
            return "the cut is chosen again by what the first rounds took"
        if round_ - self._chosen_in >= self._every:
            return f"the cut is chosen again after {round_ - self._chosen_in} rounds"
        return ""

    def _chosen(
        self,
        known: Sequence[KnownDevice],
        workload: Workload,
        grouping: Grouping,
        generator: np.random.Generator,
    ) -> CutChoice:
        present = [each.state for each in known]
        candidates = grouping.candidate_cuts(workload.cuts.num_layers)
        asked = workload.of_each_device() if grouping.cuts_by_device else workload
        left_out = leave_out(present, asked, candidates=candidates)
        present = [state for state in present if state.device not in left_out]
        if not present:
            return CutChoice(candidates[0], ())
        choose = choose_cuts if grouping.cuts_by_device else choose_cut
        return choose(
            self._states(present),
            workload,
            sizes=grouping.sizes(len(present)),
            candidates=candidates,
            schedule=CUT_SCHEDULE,
            generator=generator,
            own=grouping.choose_cut,
            devices=sorted(present, key=lambda state: state.device),
        )

    def _states(self, present: Sequence[DeviceState]) -> list[Fleet]:
        """Recent states of the devices that are here now, with what has been learned since."""
        most = num_stacked(len(present))
        fleets = []
        for past in list(self._history)[::-1][:most]:
            if all(state.device in past for state in present):
                states = [
                    replace(
                        past[state.device],
                        corrections=state.corrections,
                        power=state.power,
                        free_memory_bytes=state.free_memory_bytes,
                    )
                    for state in present
                ]
                fleets.append(Fleet.of(states))
        return fleets


class TwoTimescales:
    """Plans one round after another, whoever knows the states of the devices.

    Equal states give equal plans: a round's generator is seeded by the job's seed and its number.
    """

    def __init__(
        self,
        grouping: Grouping,
        *,
        cut: int | None,
        every: int,
        seed: int,
        own_cuts: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """`cut` is the one that was given; else it is chosen again after `every` rounds.

        `own_cuts` are of devices that cut at another layer.
        """
        self.chooser = CutChooser(every=every)
        self._grouping = grouping
        self._cut, self._own_cuts = cut, own_cuts
        self._seed = seed

    def plan(
        self, known: Sequence[KnownDevice], workload: Workload, *, round_: int, lessons: int
    ) -> tuple[Plan, CutSchedule]:
        """Plan a round, and say which cut holds; InfeasiblePlanError if none fits the devices."""
        generator = np.random.default_rng((self._seed, Purpose.PLAN, round_))
        schedule = CutSchedule(CutChoice(self._cut or 0, (), self._own_cuts), "")
        if self._cut is None:
            schedule = self.chooser.choose(
                known,
                workload,
                round_=round_,
                lessons=lessons,
                grouping=self._grouping,
                generator=generator,
            )
        plan = plan_round(
            [each.state for each in known],
            workload,
            grouping=self._grouping,
            cut=schedule.choice,
            generator=generator,
        )
        return plan, schedule


def drifted(before: Figures, now: Figures) -> list[str]:
    """Name what has changed by more than its deviation explains, device by device."""
    changes = []
    for device in sorted(before.keys() & now.keys()):
        for name in sorted(before[device].keys() & now[device].keys()):
            old, new = before[device][name], now[device][name]
            explained = MANY_DEVIATIONS * hypot(old.deviation, new.deviation)
            if abs(new.value - old.value) > max(explained, LEAST_CHANGE * old.value):
                what, unit = name.split(", ")
                changes.append(
                    f"{device}: {what} at {new.value:.3g} instead of {old.value:.3g} {unit}"
                )
    return changes


def num_stacked(num_devices: int) -> int:
    """How many states of so many devices a choice rests on."""
    return max(MAX_STACKED_DEVICES // max(num_devices, 1), 1)
