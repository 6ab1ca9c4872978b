"""One run of a comparison: simulated from its settings, in whatever process this is."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from edge_coordinator.experiments.central import clocked, pooled
from edge_coordinator.experiments.results import RoundRow, TrainedRun
from edge_coordinator.job.from_samples import whole_test_set
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.run.checkpoint import START, Reached
from edge_coordinator.run.events import Progress, RoundDone
from edge_coordinator.simulation.prepare import prepare_simulation
from edge_coordinator.training.edge_model import EdgeModel
from profiles.scenario import Scenario
from runtime.datasets.samples import DataSet
from runtime.datasets.sources import load_source
from runtime.errors import CannotTrainError, SettingsError


@dataclass(frozen=True)
class RunSpec:
    """What to simulate, and under which name to show it."""

    label: str
    settings: JobSettings
    scenario: Scenario
    is_pooled: bool = field(kw_only=True)
    """Whether all samples are in one place, for central learning in steps of one mini-batch."""

    @property
    def name(self) -> str:
        """Which run it is, in an error."""
        return f"{self.label}, seed {self.settings.seed}"


def check_runs(specs: Sequence[RunSpec], data: DataSet, *, base_dir: Path) -> None:
    """Raise, naming the run, if any of these cannot begin, so that none is trained in vain."""
    for spec in specs:
        try:
            prepared = prepare_simulation(
                spec.settings, spec.scenario, data, run=0, base_dir=base_dir
            )
            prepared.simulation.check_first_plan()
        except (SettingsError, CannotTrainError) as error:
            raise type(error)(f"{spec.name}: {error}") from error


@dataclass
class _Counter:
    """Tells how many rounds are done; a run of a comparison leaves no checkpoint."""

    on_round: Callable[[int], None]
    reached: Reached = field(default=START)

    def tell(self, progress: Progress) -> None:
        if isinstance(progress, RoundDone):
            self.on_round(progress.report.round)

    def return_to_sound(self, model: EdgeModel) -> int | None:
        """Nothing to go back to."""

    def save(self, model: EdgeModel, reached: Reached) -> None:
        """Nothing to go on with."""


def train_one(spec: RunSpec, *, base_dir: Path, on_round: Callable[[int], None]) -> TrainedRun:
    """Simulate a run from its first round to its last."""
    data = _load(spec.settings.data.source, base_dir)
    prepared = prepare_simulation(spec.settings, spec.scenario, data, run=0, base_dir=base_dir)
    trained = pooled(prepared, data, base_dir=base_dir) if spec.is_pooled else prepared
    counter = _Counter(on_round)
    rounds = asyncio.run(trained.simulation.run(observers=[counter], progress=counter))
    if spec.is_pooled:
        rows = clocked(rounds, prepared.simulation)
    else:
        rows = tuple(RoundRow.of(done) for done in rounds)
    final = rows[-1].test_accuracy
    whole = whole_test_set(spec.settings, base_dir=base_dir, data=data)
    if whole is not None:
        final = trained.model.evaluate(whole).accuracy
    return TrainedRun(label=spec.label, seed=spec.settings.seed, rounds=rows, final_accuracy=final)


@lru_cache(maxsize=1)
def _load(source: str, base_dir: Path) -> DataSet:
    return load_source(source, base_dir=base_dir)
