"""A job made ready: its settings, with everything in them that has a name looked up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edge_coordinator.job.given_plans import GivenPlans
from edge_coordinator.job.plan_settings import EVERY_OTHER
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.job.standing import Standing
from edge_coordinator.job.training_settings import ScheduleSettings
from edge_coordinator.planning.form import NOTHING_OWN, OwnPlanning
from edge_coordinator.planning.plan import ClusterPlan, Plan
from edge_coordinator.training.cuts import CutsOfTurn
from edge_coordinator.training.schedule import Schedule
from runtime.datasets.samples import Samples
from runtime.errors import SettingsError
from runtime.plugins import described, import_factory
from runtime.wire.codecs.names import TurnCodecs
from runtime.wire.commands import Assignment, Clip
from runtime.wire.micro_batches import num_aggregated
from runtime.wire.names import ClassNames
from runtime.wire.published import RoundReport

AUTOMATIC = (1, 2, 4, 8)
"""Micro-batches to choose from, where the job leaves their number to the plan."""


class FinishedRound(Protocol):
    """A round's report, or what a curve keeps of it."""

    @property
    def round(self) -> int:
        """Which round it was, from 1."""
        ...

    @property
    def test_accuracy(self) -> float | None:
        """Of the joint model, if it was evaluated."""
        ...

    @property
    def metric(self) -> str:
        """What says how good it is; empty if nothing does."""
        ...

    @property
    def test_metric(self) -> float | None:
        """That of the joint model, if it was evaluated."""
        ...

    @property
    def lower_is_better(self) -> bool:
        """Of the metric."""
        ...


class StopRule(Protocol):
    """Says when a run is over, beside the rules of the job.

    It is asked again of the same round, so it must depend on nothing else.
    """

    def __call__(self, report: FinishedRound, standing: Standing, /) -> str:
        """Say why this round was the last, for people; empty if the run goes on.

        `report` has the figures of the round, `standing` the best evaluation so far.
        """
        ...


def own_stop(reference: str | None, *, base_dir: Path) -> StopRule | None:
    """Import what a job names; its mistakes are SettingsErrors."""
    if reference is None:
        return None
    function = import_factory(reference, base_dir=base_dir)

    def stop(report: FinishedRound, standing: Standing, /) -> str:
        try:
            why = function(report, standing)
        except Exception as error:  # It is the user's own function.
            raise SettingsError(f"evaluation.stop = {reference}: {described(error)}") from error
        return f"by {reference}" if why is True else str(why or "")

    return stop


def _reaches(report: FinishedRound, target: float) -> bool:
    if report.test_metric is None:
        return False
    sign = -1 if report.lower_is_better else 1
    return sign * report.test_metric >= sign * target


@dataclass(frozen=True)
class Job:
    """Settings, and what follows from them for every round."""

    settings: JobSettings
    assignment: Assignment
    layer_names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    """Of one sample at each cut, [cut]; the input's first."""
    cut: int | None
    """Number of layers on the device; None if it is planned."""
    given_plans: GivenPlans | None
    """Where the plans come from, if not from the planner."""
    test: Samples | None
    """The coordinator's test set; None if the devices evaluate."""
    refused_cuts: Mapping[int, str]
    """Cuts that this network cannot be cut at, whatever the devices are; and why."""
    plain_cuts: Mapping[int, str]
    """Cuts at which no gradients are aggregated where plans choose how many, and why."""
    codecs: tuple[TurnCodecs, ...]
    """How tensors may travel: as given, or what a plan may choose from."""
    whole_batches: str = ""
    """Why mini-batches cannot go in parts, if they cannot; empty also where nobody asks."""
    equal_batches: str = ""
    """Why mini-batches stay equal, where that is asked for and they have to."""
    stop: StopRule | None = None
    """Of the user's own."""
    own_cuts: Mapping[str, int] = field(default_factory=dict)
    """Device id to its cut, of those that have one of their own."""
    own_planning: OwnPlanning = NOTHING_OWN
    """Of the user's own."""

    @property
    def classes(self) -> ClassNames:
        """Names of the classes, in the order of the outputs; empty where nobody named them."""
        return self.settings.data.classes

    @property
    def num_rounds(self) -> int:
        """T."""
        return self.settings.training.rounds

    @property
    def local_epochs(self) -> int:
        """L."""
        return self.settings.training.local_epochs

    @property
    def loss_on_device(self) -> bool:
        """Whether the loss is computed on the devices (federated averaging)."""
        return self.settings.training.method == "fl"

    @property
    def micro_batches(self) -> tuple[int, ...]:
        """Numbers of micro-batches that a plan may choose from."""
        given = self.settings.training.micro_batches
        if self.whole_batches or self.loss_on_device:
            return (1,)
        return AUTOMATIC if given == "auto" else (given,)

    def phi_of(self, cluster: ClusterPlan) -> float:
        """Share of the mini-batches of a cluster whose gradients are aggregated."""
        training = self.settings.training
        return (cluster.phi or 0.0) if training.phis else training.given_phi

    def num_aggregated(self, cluster: ClusterPlan, batch_sizes: Sequence[int]) -> int:
        """How many samples of each device of a cluster are given one gradient for all."""
        return 0 if self.loss_on_device else num_aggregated(self.phi_of(cluster), batch_sizes)

    def cut_name(self, cut: int) -> str:
        """Name of the last layer on the device."""
        return self.layer_names[cut - 1] if cut else "input"

    def smashed_shape(self, cut: int) -> tuple[int, ...]:
        """Shape of one sample's smashed data."""
        return self.shapes[cut]

    def server_rate(self, round_: int) -> float:
        """Learning rate of the server side in a round."""
        training = self.settings.training
        return training.server_optimizer.learning_rate * self._factor(training.schedule, round_)

    def device_rate(self, round_: int, cluster_size: int) -> float:
        """Learning rate of the device side; |K_m| times the server's if none was given.

        Where the devices compute the loss themselves, each gradient is that of its own mean, and
        the rate is the server's.
        """
        training = self.settings.training
        given = training.device_optimizer
        factor = self._factor(training.device_schedule or training.schedule, round_)
        if given is not None and given.learning_rate is not None:
            return given.learning_rate * factor
        return training.server_optimizer.learning_rate * factor * self._num_parts(cluster_size)

    def server_clip(self) -> Clip | None:
        """What the gradients of the server side are clipped to."""
        return self.settings.training.clip.of_server()

    def device_clips(self, cluster: ClusterPlan) -> Mapping[str, Clip | None]:
        """What those of each device of a cluster are; docs/decisions/clipping.md."""
        clip, num_parts = self.settings.training.clip, self._num_parts(len(cluster.devices))
        if not cluster.batch_sizes:
            return dict.fromkeys(cluster.devices, clip.of_device(num_parts))
        total = sum(cluster.batch_sizes)
        sizes = zip(cluster.devices, cluster.batch_sizes, strict=True)
        return {device: clip.of_device(total / size) for device, size in sizes}

    def turn_cuts(self, round_: int, plan: Plan, cluster: ClusterPlan) -> CutsOfTurn:
        """Where a cluster's devices cut, and how layers learn that some leave to the server."""
        size = len(cluster.devices)
        return CutsOfTurn(
            plan.cuts_of(cluster),
            learning_rate=self.device_rate(round_, size),
            rate_by_size=self.steps_by_size,
            clip=self.settings.training.clip.of_device(self._num_parts(size)),
        )

    def _num_parts(self, cluster_size: int) -> int:
        """Of how many devices' losses a device's gradient is a mean: its own alone, or all."""
        return 1 if self.loss_on_device else cluster_size

    @property
    def steps_by_size(self) -> bool:
        """Whether a device's step is in proportion to |K_m|, and to its gradient.

        Adam's steps do not follow the size of a gradient, only that of the rate.
        """
        training = self.settings.training
        given = training.device_optimizer
        is_default = given is None or given.learning_rate is None
        return is_default and not self.loss_on_device and training.device_spec().name == "sgd"

    def codecs_of(self, plan: Plan) -> TurnCodecs | None:
        """How tensors travel in the turns of a plan; None if they all do as they are."""
        codecs = plan.codecs or self.codecs[0]
        return None if codecs.is_raw else codecs

    def evaluates_in(self, round_: int) -> bool:
        """Whether a round ends with an evaluation."""
        return round_ % self.settings.evaluation.every == 0 or round_ == self.num_rounds

    def standing_after(self, before: Standing, report: RoundReport) -> Standing:
        """What the evaluations say once a round is done."""
        return before.after(report, least_gain=self.settings.evaluation.least_gain)

    def why_over(self, report: FinishedRound, standing: Standing) -> str:
        """Why a round was the last, for people; empty if the run goes on."""
        rules = self.settings.evaluation
        target, patience = rules.target_accuracy, rules.patience
        if target is not None and (report.test_accuracy or 0.0) >= target:
            return f"the target of {target:.2%} is reached"
        if rules.target is not None and _reaches(report, rules.target):
            return f"the target of {report.metric} {rules.target:g} is reached"
        if report.round >= self.num_rounds:
            return f"all {report.round} rounds are done"
        if patience is not None and standing.num_without_gain >= patience:
            assert standing.mark is not None
            rule = f", least gain {rules.least_gain:g}" if rules.least_gain else ""
            return f"nothing gained since round {standing.mark.round} (patience {patience}{rule})"
        return "" if self.stop is None else self.stop(report, standing)

    def check_devices(self, names: Sequence[str]) -> None:
        """SettingsError if these devices are all that there will be and cannot do what is given."""
        excluded = self.settings.devices.exclude
        if unknown := sorted(self.own_cuts.keys() - set(names)):
            raise SettingsError(
                f"plan.cuts.{unknown[0]} is of no device of this run; they are {', '.join(names)}"
            )
        if self.given_plans is not None:
            self.given_plans.check_devices([name for name in names if name not in excluded])

    def check_named(self, names: Sequence[str]) -> None:
        """SettingsError if a key is of a device that is none of these, which are all there will be.

        A simulation has names of its own, whatever job it takes.
        """
        plan = self.settings.plan
        keyed = {key: getattr(plan, key) for key in ("byte_budgets", "energy_budgets", "power")}
        for key, devices in keyed.items():
            if unknown := sorted(devices.keys() - {*names, EVERY_OTHER}):
                raise SettingsError(
                    f"plan.{key}.{unknown[0]} is of no device of this run; they are "
                    f"{', '.join(names)}, and {EVERY_OTHER} is all others"
                )

    def check_refusals(self, refusals: Mapping[str, str]) -> None:
        """SettingsError if so many devices refused that the job cannot begin in local mode."""
        if self.settings.broker.url is None and refusals:
            device, reason = next(iter(sorted(refusals.items())))
            raise SettingsError(f"device {device} cannot take part: {reason}")

    def _factor(self, given: ScheduleSettings, round_: int) -> float:
        return Schedule(**given.model_dump(), num_rounds=self.num_rounds).rate_factor(round_)
