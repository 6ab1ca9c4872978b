"""From settings to a simulation that is ready to run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_coordinator.job import Job, prepare_job
from edge_coordinator.settings import JobSettings
from edge_coordinator.simulation.costs import job_defaults
from edge_coordinator.simulation.simulation import Simulation
from edge_coordinator.simulation.world import deal_samples
from edge_coordinator.training.edge_model import EdgeModel
from profiles.emulation import EmulationError
from profiles.scenario import Scenario
from profiles.scenario_files import ScenarioError, load_scenario
from profiles.variation import Spread
from runtime.datasets.samples import DataSet
from runtime.errors import SettingsError

DEFAULT_SCENARIO = "paper"

LoadSettings = Callable[[Mapping[str, object]], JobSettings]
"""Read the job's settings over these defaults."""


@dataclass(frozen=True)
class Prepared:
    """A simulation, and the job that it trains."""

    job: Job
    model: EdgeModel
    simulation: Simulation


def settings_for(load: LoadSettings, *, base_dir: Path) -> tuple[JobSettings, Scenario]:
    """Read the settings, and the scenario that they name; what it states of the job is a default.

    A spread in the settings replaces the scenario's own.
    """
    asked = load({})
    reference = asked.devices.scenario or DEFAULT_SCENARIO
    scenario = read_scenario(reference, base_dir=base_dir)
    if (spread := asked.devices.spread) is not None:
        scenario = scenario.model_copy(update={"spread": Spread.between_rounds(spread)})
    defaults = {"devices.scenario": reference, **job_defaults(scenario, asked)}
    return load(defaults), scenario


def read_scenario(reference: str, *, base_dir: Path) -> Scenario:
    """Read a scenario; SettingsError if it cannot be used."""
    try:
        return load_scenario(reference, base_dir=base_dir)
    except (ScenarioError, EmulationError) as error:
        raise SettingsError(str(error)) from error


def prepare_simulation(
    settings: JobSettings, scenario: Scenario, data: DataSet, *, run: int, base_dir: Path
) -> Prepared:
    """Look everything up; SettingsError for whatever does not fit together."""
    job, model = prepare_job(settings, run=run, base_dir=base_dir, data=data)
    simulation = Simulation(job, model, deal_samples(job, data.train), scenario)
    return Prepared(job, model, simulation)
