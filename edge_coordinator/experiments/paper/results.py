"""All that the tables of the paper's comparison are made of."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_coordinator.experiments.bounds import Observed, mean
from edge_coordinator.experiments.latencies import Latency
from edge_coordinator.experiments.report import parts_of
from edge_coordinator.experiments.results import Runs, converged, mean_round_s, reached
from profiles.cuts import CutTable
from profiles.scenario import Scenario


@dataclass(frozen=True)
class PaperResults:
    """What was trained and found out, by the label of each variant."""

    runs: Runs
    scenario: Scenario
    target: float
    spread: Mapping[str, Latency]
    """Of cpsl, sl and fl, with devices and links that differ."""
    counted: CutTable
    """The trained network's own costs."""
    learning_rate: float
    tuned_fl: str
    """Label of FL with the local epochs that serve it best."""

    def round_s(self, label: str) -> float:
        """Mean seconds of a round."""
        return mean_round_s(self.runs[label])

    def to_target_s(self, label: str) -> list[Observed]:
        """Seconds to the target, one a seed."""
        return _known(
            parts_of([reached(run, self.target) for run in self.runs[label]], "elapsed_s")
        )

    def mean_to_target_s(self, label: str) -> Observed:
        """Mean seconds to the target over the seeds."""
        return mean(self.to_target_s(label))

    def convergence_s(self, label: str) -> list[Observed]:
        """Seconds to convergence, one a seed."""
        events = [converged(run) for run in self.runs[label]]
        return _known(parts_of(events, "elapsed_s"))

    def final_accuracy(self, label: str) -> float:
        """Mean over the seeds."""
        return float(np.mean([run.final_accuracy or 0.0 for run in self.runs[label]]))


def _known(values: list[Observed | None]) -> list[Observed]:
    """Narrow the type: every run of this comparison is evaluated, in its last round at least."""
    assert all(value is not None for value in values)
    return [value for value in values if value is not None]
