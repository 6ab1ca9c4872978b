"""How many local epochs federated averaging is given: found by a small search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_coordinator.experiments.latencies import Setting, method_latency
from edge_coordinator.experiments.report import parts_of
from edge_coordinator.experiments.results import Runs, TrainedRun, reached
from edge_coordinator.experiments.runs import RunSpec
from edge_coordinator.experiments.tables import percent, seconds, table

CANDIDATES = (1, 5, 10, 20, 50)
LAST_PART = 0.2
"""Of the seconds of a run: a candidate's accuracy is the mean of the evaluations in it."""


@dataclass(frozen=True)
class Candidate:
    """One number of local epochs, and how it did."""

    local_epochs: int
    run: TrainedRun
    target: float

    @property
    def seconds_to_target(self) -> float | None:
        """Simulated seconds; None if it was not reached."""
        event = reached(self.run, self.target)
        return None if event is None or event.is_bound else event.elapsed_s

    @property
    def accuracy(self) -> float:
        """Mean over the last fifth of its seconds; of the last evaluation, if there is but one."""
        rows = [row for row in self.run.rounds if row.test_accuracy is not None]
        since_s = (1 - LAST_PART) * rows[-1].elapsed_s
        return float(
            np.mean([row.test_accuracy or 0.0 for row in rows if row.elapsed_s >= since_s])
        )


def specs_of(federated: RunSpec, setting: Setting) -> Mapping[int, RunSpec]:
    """Train for as many simulated seconds as the method itself, by number of local epochs.

    Every round is evaluated: there are few. What would not end its first round is left out.
    """
    budget_s = federated.settings.training.rounds * _round_s(setting, 1)
    specs = {}
    for local_epochs in CANDIDATES:
        rounds = int(budget_s / _round_s(setting, local_epochs) + 1e-9)
        if rounds:
            specs[local_epochs] = _spec(federated, local_epochs, rounds)
    return specs


def candidates_of(runs: Runs, specs: Mapping[int, RunSpec], *, target: float) -> list[Candidate]:
    """Bring the trained runs together with what they tried; each was trained with one seed."""
    return [
        Candidate(local_epochs, runs[spec.label][0], target) for local_epochs, spec in specs.items()
    ]


def best(candidates: Sequence[Candidate]) -> Candidate:
    """Choose the first at the target; if none came there, the most accurate in the end."""
    there = [each for each in candidates if each.seconds_to_target is not None]
    if there:
        return min(there, key=lambda each: each.seconds_to_target or 0.0)
    return max(candidates, key=lambda each: each.accuracy)


def tuning_part(candidates: Sequence[Candidate], *, seed: int) -> str:
    """What the search tried, and what it took."""
    rows = []
    for each in candidates:
        (event,) = parts_of([reached(each.run, each.target)], "elapsed_s")
        rows.append(
            [
                str(each.local_epochs),
                str(len(each.run.rounds)),
                "" if event is None else event.text(seconds),
                percent(each.accuracy),
            ]
        )
    target = f"seconds to {candidates[0].target:.0%}"
    return (
        "## Local epochs of FL\n\n"
        "With L = 1, as published for all methods, federated averaging is FedSGD: a device sends "
        "its model for one step. So FL is also trained with the L that serves it best of "
        f"{', '.join(str(each) for each in CANDIDATES)}, each tried for the same simulated "
        f"seconds with seed {seed}, which is none of the report's: the one that is first at the "
        f"target, else the one with the highest accuracy in the last fifth of its seconds. Taken: "
        f"L = {best(candidates).local_epochs}.\n\n"
        + table(("L", "rounds", target, "accuracy in the last fifth"), rows)
    )


def _spec(federated: RunSpec, local_epochs: int, rounds: int) -> RunSpec:
    settings = federated.settings
    training = settings.training.model_copy(update={"local_epochs": local_epochs, "rounds": rounds})
    evaluation = settings.evaluation
    if local_epochs > 1:
        evaluation = evaluation.model_copy(update={"every": 1})
    return replace(
        federated,
        label=f"FL, L = {local_epochs}",
        settings=settings.model_copy(update={"training": training, "evaluation": evaluation}),
    )


def _round_s(setting: Setting, local_epochs: int) -> float:
    workload = replace(setting.workload, local_epochs=local_epochs)
    longer = replace(setting, workload=workload)
    return method_latency(longer, "fl", spread=0.0, draws=1).mean_s
