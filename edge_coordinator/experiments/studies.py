"""What is found out without training: what planning buys, and what every cut costs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.progress import Progress

from edge_coordinator.experiments.cuts import CutCost, at_costs, cheapest_cut, cut_costs
from edge_coordinator.experiments.groupings import GroupingStudies, num_steps, study_groupings
from edge_coordinator.experiments.latencies import Setting
from edge_coordinator.job.file import value_of
from edge_coordinator.job.settings import JobSettings, device_names
from edge_coordinator.planning.form import Method
from edge_coordinator.planning.plan import InfeasiblePlanError
from edge_coordinator.replanning.task import grouping_of
from edge_coordinator.simulation.prepare import PreparedSimulation
from runtime.errors import CannotTrainError

CutTableCosts = tuple[str, str, list[CutCost]]
"""A title, the name of a file, and what each cut costs."""


@dataclass(frozen=True)
class Studies:
    """Latencies in drawn states of the devices."""

    setting: Setting
    groupings: GroupingStudies
    cuts: list[CutTableCosts]


def study(prepared: PreparedSimulation, *, draws: int, bar: Progress) -> Studies:
    """Study groupings and cuts where a simulation takes place.

    CannotTrainError if there is no plan to study.
    """
    steps = bar.add_task("groupings and cuts", total=num_steps())
    try:
        setting = setting_of(prepared)
        groupings = study_groupings(setting, draws=draws, on_step=lambda: bar.advance(steps))
        cuts = every_cut(setting, prepared)
    except InfeasiblePlanError as error:
        raise CannotTrainError(f"what planning buys cannot be studied: {error}") from error
    bar.update(steps, completed=num_steps())
    return Studies(setting, groupings, cuts)


def setting_of(prepared: PreparedSimulation) -> Setting:
    """Take the place of a simulation's rounds, to study it without training."""
    simulation, settings = prepared.simulation, prepared.job.settings
    names = tuple(device_names(settings.devices.count))
    chosen = numbers_taking_part(settings)
    clusters = grouping_of_settings(with_method(settings, "cpsl"), len(chosen))
    costs = simulation.costs
    planned = settings.plan.chooses_cut
    cut = costs.table_cut(prepared.job.cut) if prepared.job.cut is not None else 1
    setting = Setting(
        scenario=simulation.scenario,
        workload=replace(simulation.workload, loss_on_device=False),  # Whatever the job's method.
        devices=names,
        num_clusters=len(clusters),
        cut=min(max(cut, 1), costs.table.num_layers - 1),
        seed=settings.seed,
        chosen=chosen,
    )
    return cheapest_cut(setting) if planned else setting


def every_cut(setting: Setting, prepared: PreparedSimulation) -> list[CutTableCosts]:
    """Price the cuts of the cost table, and those of the trained network where it is another."""
    simulation = prepared.simulation
    counted = simulation.counted
    network = f"By the costs of the trained network ({counted.network}), counted layer by layer"
    if not simulation.costs.is_stated:
        return [(network, "cuts", cut_costs(setting))]
    stated = f"By the costs that scenario {setting.scenario.name} states"
    own = at_costs(setting, counted, label_bits=simulation.label_bits)
    return [
        (stated, "cuts", cut_costs(setting)),
        (network, "cuts-of-network", cut_costs(own)),
    ]


def numbers_taking_part(settings: JobSettings) -> tuple[int, ...]:
    """Number the devices from 0, and leave out those that the job excludes."""
    names, excluded = device_names(settings.devices.count), settings.devices.exclude
    return tuple(number for number, name in enumerate(names) if name not in excluded)


def with_method(settings: JobSettings, method: Method) -> JobSettings:
    """Change the method; a run of a comparison goes on to its last round.

    It is run without what it cannot have: cuts by device where all cut at one end of the network,
    and where no gradient is computed on the server, shares of one and of a cluster's samples.
    """
    changes: dict[str, dict[str, object]] = {"training": {"method": method}, "plan": {}}
    if method in {"fl", "cl"}:
        changes["plan"]["cuts"] = {}
    if method == "fl":
        changes["plan"]["batch_sizes"] = "equal"
        changes["training"]["phi"] = 0.0
    changes["evaluation"] = {"target_accuracy": None, "patience": None}
    parts = {name: getattr(settings, name).model_copy(update=own) for name, own in changes.items()}
    return settings.model_copy(update=parts)


def left_aside(settings: JobSettings, method: Method) -> list[str]:
    """Name what a job asks for that a method is compared without."""
    own = with_method(settings, method)
    keys = ("plan.cuts", "plan.batch_sizes", "training.phi")
    return [key for key in keys if value_of(settings, key) != value_of(own, key)]


def grouping_of_settings(settings: JobSettings, num_devices: int) -> Sequence[int]:
    """List the sizes of the clusters that a job asks for."""
    sizes: list[int] = grouping_of(settings, num_devices).sizes(num_devices).tolist()
    return sizes
