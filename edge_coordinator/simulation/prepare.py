"""From settings to a simulation that is ready to run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_coordinator.job.file import value_of
from edge_coordinator.job.job import Job
from edge_coordinator.job.prepare import prepare_job
from edge_coordinator.job.settings import JobSettings, ModelSettings, device_names
from edge_coordinator.simulation.costs import job_defaults
from edge_coordinator.simulation.simulation import Simulation
from edge_coordinator.simulation.world import deal_samples
from edge_coordinator.training.edge_model import EdgeModel
from profiles.emulation import EmulationError
from profiles.scenario import Scenario
from profiles.variation import Spread
from runtime.datasets.samples import DataSet
from runtime.errors import SettingsError
from runtime.scenarios.files import ScenarioError, load_scenario

SCENARIO_WITHOUT_JOB = "paper"
SCENARIO_OF_JOB = "uniform"
"""For a job file, or a network other than the paper's, without a scenario: it takes any network and
any cut, and states nothing of a job."""

LoadSettings = Callable[[Mapping[str, object]], JobSettings]
"""Read the job's settings over these defaults."""


@dataclass(frozen=True)
class PreparedSimulation:
    """A simulation, and the job that it trains."""

    job: Job
    model: EdgeModel
    simulation: Simulation


def settings_for(
    load: LoadSettings, *, base_dir: Path, from_file: bool, say: Callable[[str], None]
) -> tuple[JobSettings, Scenario]:
    """Read the settings, and the scenario that they name.

    What a scenario states of the job holds where no file says what the job is; what is taken of it
    is said. A spread in the settings replaces the scenario's own.
    """
    asked = load({})
    is_of_paper = not from_file and asked.model == ModelSettings()
    default = SCENARIO_WITHOUT_JOB if is_of_paper else SCENARIO_OF_JOB
    reference = asked.devices.scenario or default
    scenario = read_scenario(reference, base_dir=base_dir)
    if (spread := asked.devices.spread) is not None:
        scenario = scenario.model_copy(update={"spread": Spread.between_rounds(spread)})
    stated = {} if from_file else job_defaults(scenario, asked)
    settings = load({"devices.scenario": reference, **stated})
    points = [point for each in scenario.devices for point in each.trace]
    if any(
        point.battery_fraction is not None or point.temperature_c is not None for point in points
    ):
        say(f"scenario {reference} has batteries or heat, which agents publish: here nobody rests")
    for sentence in _what_was_added(asked, settings, reference, stated):
        say(sentence)
    return settings, scenario


def _what_was_added(
    asked: JobSettings, settings: JobSettings, reference: str, stated: Mapping[str, object]
) -> list[str]:
    """Say what of the settings comes from the command and its scenario, if anything does."""
    sentences = []
    if asked.devices.scenario is None:
        sentences.append(f"the job names no scenario: taking {reference}")
    budgets = [key for key in ("byte_budgets", "energy_budgets") if getattr(settings.plan, key)]
    if budgets:
        which = " and ".join(f"plan.{key}" for key in budgets)
        sentences.append(f"{which} hold in real runs alone: in a simulation nobody rests")
    changed = [key for key in stated if value_of(asked, key) != value_of(settings, key)]
    if changed:
        values = ", ".join(f"{key} = {value_of(settings, key)}" for key in changed)
        sentences.append(f"by scenario {reference}: {values}")
    return ["; ".join(sentences)] if sentences else []


def read_scenario(reference: str, *, base_dir: Path) -> Scenario:
    """Read a scenario; SettingsError if it cannot be used."""
    try:
        return load_scenario(reference, base_dir=base_dir)
    except (ScenarioError, EmulationError) as error:
        raise SettingsError(str(error)) from error


def prepare_simulation(
    settings: JobSettings, scenario: Scenario, data: DataSet, *, run: int, base_dir: Path
) -> PreparedSimulation:
    """Look everything up; SettingsError for whatever does not fit together."""
    job, model = prepare_job(settings, run=run, base_dir=base_dir, data=data)
    job.check_devices(device_names(settings.devices.count))
    simulation = Simulation(job, model, deal_samples(job, data.train), scenario)
    return PreparedSimulation(job, model, simulation)
