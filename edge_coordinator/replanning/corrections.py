"""What finished rounds taught: corrections of each device's phases, and what a turn costs besides.

Waiting for the slowest of several devices that vary takes longer than the slowest takes on
average, and between the phases of the model lie copying, averaging and joining. Both are learned
as seconds a cluster and seconds a round, the same for every plan. What is kept is bounded, so that
what was learned of one state of the devices cannot make less than nothing of another.
"""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_coordinator.planning.measured import least_turn_seconds, turn_seconds
from edge_coordinator.planning.plan import ClusterPlan
from edge_coordinator.replanning.memory import CorrectionsMemory
from profiles.corrections import MOST_SCALE, Corrections, phase_array
from profiles.phases import COMPUTE_PHASES, Phase
from profiles.units import Floats

NUM_REMEMBERED = 5
"""Rounds that a correction rests on."""
LEAST_S = 1e-9


@dataclass(frozen=True)
class TurnMeasured:
    """One cluster's turn: its plan, and what was measured."""

    plan: ClusterPlan
    phases_s: Mapping[str, Floats]
    """Seconds of each device's phases in one local epoch, [phase]."""
    turn_s: float


class Recent:
    """The last values of something, [...], and what is usual of them.

    One odd round (the first, where everything is loaded and compiled) says little about the
    next: so the median counts, and of two values the smaller.
    """

    def __init__(self) -> None:
        self._values: deque[Floats] = deque(maxlen=NUM_REMEMBERED)

    def add(self, value: Floats) -> None:
        """Take one more value."""
        self._values.append(value)

    @property
    def values(self) -> list[Floats]:
        """All that is remembered, the oldest first."""
        return list(self._values)

    @property
    def usual(self) -> Floats:
        """The median, [...]; of two the smaller; zero if there are none."""
        if not self._values:
            return np.zeros(())
        stacked = np.array(self._values)
        usual: Floats = stacked.min(axis=0) if len(stacked) == 2 else np.median(stacked, axis=0)
        return usual


class LearnedCorrections:
    """Corrections by device, and seconds a cluster and a round beyond the model."""

    def __init__(self) -> None:
        self._corrections: defaultdict[str, Recent] = defaultdict(Recent)
        """By device: scale and added seconds, [scale or added, phase]."""
        self._cluster_s = Recent()
        self._round_s = Recent()
        self.num_rounds = 0
        """Rounds that were learned from."""
        self.slower: dict[str, float] = {}
        """By device that was late: how many times as long as predicted it takes, at the least."""

    @property
    def cluster_s(self) -> float:
        """What a turn takes beyond its phases."""
        return float(self._cluster_s.usual)

    @property
    def round_s(self) -> float:
        """What a round takes beyond its turns."""
        return float(self._round_s.usual)

    def of(self, device: str) -> Corrections:
        """Corrections of one device; none if it has never been measured."""
        if device not in self._corrections:
            return Corrections.none()
        scale, added_s = self._corrections[device].usual
        return Corrections(scale, added_s)

    def learn(
        self,
        turns: Sequence[TurnMeasured],
        *,
        beyond_turns_s: float | None,
        local_epochs: int,
        loss_on_device: bool,
    ) -> None:
        """Learn from the turns of a round that nobody was lost in.

        `beyond_turns_s` is what the round took beyond all its turns; None if that shows nothing,
        since somebody was waited for in vain.
        """
        self.num_rounds += 1
        for turn in turns:
            if turn.plan.micro_batches > 1:
                self._learn_overlapped(turn)
                continue
            corrected_s = [
                self._learn_device(device, predicted_s, turn.phases_s[device])
                for device, predicted_s in predicted_phases(turn.plan).items()
            ]
            phase_s, epochs = np.array(corrected_s).T, local_epochs
            modelled_s = turn_seconds(phase_s, local_epochs=epochs, loss_on_device=loss_on_device)
            least_s = least_turn_seconds(
                phase_s, local_epochs=epochs, loss_on_device=loss_on_device
            )
            # A turn that was faster than its devices can be shows an error in their phases.
            self._cluster_s.add(np.array(max(turn.turn_s, least_s) - modelled_s))
        if beyond_turns_s is not None:
            self._round_s.add(np.array(max(beyond_turns_s, 0.0)))

    def _learn_overlapped(self, turn: TurnMeasured) -> None:
        """Learn from a turn whose phases overlap: what is computed, and what the whole took.

        A transfer that waits while something else goes on shows nothing of the link.
        """
        assert turn.plan.predicted_s is not None
        for device, predicted_s in predicted_phases(turn.plan).items():
            computes = np.isin(np.arange(len(Phase)), COMPUTE_PHASES)
            measured_s = np.where(computes, turn.phases_s[device], np.nan)
            self._learn_device(device, predicted_s, measured_s)
        self._cluster_s.add(np.array(turn.turn_s - turn.plan.predicted_s + turn.plan.overhead_s))

    def learn_late(self, device: str, plan: ClusterPlan, *, answer_s: float, late_s: float) -> None:
        """Take in that an answer that was predicted at `answer_s` had not come after `late_s`.

        Nobody knows why, so the device counts as slower in all that it does. What it was measured
        at before was another device.
        """
        factor = min(late_s / max(answer_s, LEAST_S), MOST_SCALE)
        if factor <= 1:
            return
        predicted_s, before = predicted_phases(plan)[device], self.of(device)
        computes = np.isin(np.arange(len(Phase)), COMPUTE_PHASES)
        scale = np.where(computes, factor * before.scale, before.scale)
        scale[Phase.SERVER] = before.scale[Phase.SERVER]
        added_s = before.added_s + np.where(computes, 0.0, (factor - 1) * predicted_s)
        slower = Corrections.bounded(scale=scale, added_s=added_s)
        self._corrections[device] = Recent()
        self._corrections[device].add(np.array([slower.scale, slower.added_s]))
        self.slower[device] = factor

    def remember(self) -> CorrectionsMemory:
        """Give what a checkpoint keeps."""
        corrections = {
            device: [value.tolist() for value in recent.values]
            for device, recent in self._corrections.items()
        }
        return CorrectionsMemory(
            corrections=corrections,
            cluster_s=[float(value) for value in self._cluster_s.values],
            round_s=[float(value) for value in self._round_s.values],
            num_rounds=self.num_rounds,
            slower=self.slower,
        )

    def recall(self, memory: CorrectionsMemory) -> None:
        """Take over what a checkpoint kept."""
        for device, values in memory.corrections.items():
            for value in values:
                self._corrections[device].add(np.array(value))
        for value_s in memory.cluster_s:
            self._cluster_s.add(np.array(value_s))
        for value_s in memory.round_s:
            self._round_s.add(np.array(value_s))
        self.num_rounds, self.slower = memory.num_rounds, dict(memory.slower)

    def _learn_device(self, device: str, predicted_s: Floats, measured_s: Floats) -> Floats:
        """Correct one device; what would have been predicted now, [phase]."""
        before = self.of(device)
        implied = before.learn(predicted_s=predicted_s, measured_s=np.maximum(measured_s, LEAST_S))
        self._corrections[device].add(np.array([implied.scale, implied.added_s]))
        self.slower.pop(device, None)
        return self.of(device).corrected(before.modelled(predicted_s))


def predicted_phases(plan: ClusterPlan) -> dict[str, Floats]:
    """Predicted seconds of each device of a cluster, [phase]."""
    return {
        device: phase_array(phases)
        for device, phases in zip(plan.devices, plan.phases, strict=True)
    }
