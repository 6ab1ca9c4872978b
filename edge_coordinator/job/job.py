"""A job made ready: its settings, with everything in them that has a name looked up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from edge_coordinator.job.classes import agree_on_classes, check_outputs, check_test_set
from edge_coordinator.job.given_plans import GivenPlans, PlansByHand, num_clusters
from edge_coordinator.job.loss_check import check_loss
from edge_coordinator.job.replay import read_replay
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.job.standing import Standing
from edge_coordinator.planning.plan import InfeasiblePlanError, plan_by_hand
from edge_coordinator.training.aggregation import aggregation
from edge_coordinator.training.edge_model import EdgeModel, Training
from edge_coordinator.training.schedule import Schedule
from runtime.datasets.samples import DataSet, Samples
from runtime.datasets.sources import load_source
from runtime.errors import SettingsError
from runtime.models.load import (
    check_sample_shape,
    cut_index,
    input_shape_of,
    layer_shapes,
    load_network,
    refused_cuts,
)
from runtime.models.losses import load_loss
from runtime.models.sequence import Network, layers_of
from runtime.wire.class_names import ClassNames
from runtime.wire.commands import Assignment
from runtime.wire.published import RoundReport


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

    def cut_name(self, cut: int) -> str:
        """Name of the last layer on the device."""
        return self.layer_names[cut - 1] if cut else "input"

    def smashed_shape(self, cut: int) -> tuple[int, ...]:
        """Shape of one sample's smashed data."""
        return self.shapes[cut]

    def server_rate(self, round_: int) -> float:
        """Learning rate of the server side in a round."""
        return self.settings.training.server_optimizer.learning_rate * self._factor(round_)

    def device_rate(self, round_: int, cluster_size: int) -> float:
        """Learning rate of the device side; |K_m| times the server's if none was given.

        Where the devices compute the loss themselves, each gradient is that of its own mean, and
        the rate is the server's.
        """
        given = self.settings.training.device_optimizer
        if given is not None and given.learning_rate is not None:
            return given.learning_rate * self._factor(round_)
        return self.server_rate(round_) * (1 if self.loss_on_device else cluster_size)

    @property
    def steps_by_size(self) -> bool:
        """Whether a device's step is in proportion to |K_m|, and to its gradient.

        Adam's steps do not follow the size of a gradient, only that of the rate.
        """
        training = self.settings.training
        given = training.device_optimizer
        is_default = given is None or given.learning_rate is None
        return is_default and not self.loss_on_device and training.device_spec().name == "sgd"

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
        if report.round >= self.num_rounds:
            return f"all {report.round} rounds are done"
        if patience is not None and standing.num_without_gain >= patience:
            assert standing.mark is not None
            rule = f", least gain {rules.least_gain:g}" if rules.least_gain else ""
            return f"nothing gained since round {standing.mark.round} (patience {patience}{rule})"
        return ""

    def check_devices(self, names: Sequence[str]) -> None:
        """SettingsError if these devices are all that there will be and cannot do what is given."""
        excluded = self.settings.devices.exclude
        if self.given_plans is not None:
            self.given_plans.check_devices([name for name in names if name not in excluded])

    def check_refusals(self, refusals: Mapping[str, str]) -> None:
        """SettingsError if so many devices refused that the job cannot begin in local mode."""
        if self.settings.broker.url is None and refusals:
            device, reason = next(iter(sorted(refusals.items())))
            raise SettingsError(f"device {device} cannot take part: {reason}")

    def _factor(self, round_: int) -> float:
        given = self.settings.training.schedule
        return Schedule(**given.model_dump(), num_rounds=self.num_rounds).rate_factor(round_)


def prepare_job(
    settings: JobSettings, *, run: int, base_dir: Path, data: DataSet | None
) -> tuple[Job, EdgeModel]:
    """Look everything up, once; SettingsError for whatever does not fit together.

    `data` is the source where it has been loaded already (local mode).
    """
    loss = load_loss(settings.training.loss, base_dir=base_dir)
    test = whole_test_set(settings, base_dir=base_dir, data=data)
    train = data.train if data else None
    given = settings.data.classes
    settings, test = agree_on_classes(settings, test=test, train=train)
    known = data.sample_shape if data else test.sample_shape if test else None
    network = load_network(
        settings.model.name,
        settings.model.options,
        seed=settings.seed,
        sample_shape=known,
        base_dir=base_dir,
    )
    shape = known or input_shape_of(network)
    check_sample_shape(network, shape)
    assignment = _assignment(settings, network, run=run, shape=shape, stated=bool(given))
    check_outputs(settings, num_outputs=assignment.num_classes, train=train)
    if test is not None:
        check_test_set(test, settings, shape=shape, num_classes=assignment.num_classes)
        check_loss(
            network,
            loss,
            test,
            name=settings.training.loss,
            wants_accuracy=settings.evaluation.target_accuracy is not None,
        )
    names, cut = tuple(layers_of(network)), _cut(settings, network)
    job = Job(
        settings=settings,
        assignment=assignment,
        layer_names=names,
        shapes=(shape, *layer_shapes(network, shape)),
        cut=cut,
        given_plans=_given_plans(settings, cut=cut, layer_names=names, base_dir=base_dir),
        test=_some(test, settings.evaluation.max_samples),
        refused_cuts=refused_cuts(network, shape),
    )
    if job.cut is not None and job.cut in job.refused_cuts:
        raise SettingsError(f"plan.cut = {job.cut}: {job.refused_cuts[job.cut]}")
    _check_clusters(settings)
    training = Training(
        server_optimizer=settings.training.server_optimizer.spec(),
        device_optimizer=settings.training.device_spec(),
        carry_state=settings.training.carry_optimizer_state,
        aggregate=aggregation(settings.training.aggregation, trim=settings.training.trim),
        loss=loss,
        seed=settings.seed,
    )
    return job, EdgeModel(network, training)


def _assignment(
    settings: JobSettings, network: Network, *, run: int, shape: tuple[int, ...], stated: bool
) -> Assignment:
    """Say what a device is told; `stated` if the job itself lists its classes."""
    outputs = layer_shapes(network, shape)[-1]
    classifies = settings.training.loss == "cross_entropy" and len(outputs) == 1
    return Assignment(
        run=run,
        network=settings.model.name,
        options=settings.model.options,
        loss=settings.training.loss,
        seed=settings.seed,
        batch_size=settings.training.batch_size,
        held_out=settings.data.held_out if settings.data.test == "devices" else 0.0,
        max_evaluation_samples=settings.data.max_evaluation_samples,
        num_classes=outputs[0] if classifies else None,
        optimizer=settings.training.device_spec(),
        carry_state=settings.training.carry_optimizer_state,
        measure=settings.plan.mode == "auto",
        deepest_cut=_deepest_cut(settings, network),
        classes=settings.data.classes or None,
        numbers_count_classes=stated or None,
    )


def _deepest_cut(settings: JobSettings, network: Network) -> int | None:
    """How many layers a device may be given; None if nothing is known of that."""
    if settings.plan.replayed is not None:
        return None
    cut = _cut(settings, network)
    return len(layers_of(network)) - 1 if cut is None else cut


def _cut(settings: JobSettings, network: Network) -> int | None:
    match settings.training.method:
        case "fl":
            return len(layers_of(network))
        case "cl":
            return 0
    is_given = settings.plan.cut != "auto" and settings.plan.replayed is None
    return cut_index(network, settings.plan.cut) if is_given else None


def _given_plans(
    settings: JobSettings, *, cut: int | None, layer_names: Sequence[str], base_dir: Path
) -> GivenPlans | None:
    """Open the source of the plans; None if they are planned as the run goes."""
    if settings.plan.replayed is not None:
        run = settings.plan.replayed
        return read_replay(run, settings, layer_names=layer_names, base_dir=base_dir)
    if settings.plan.is_by_hand:
        assert cut is not None
        return PlansByHand(settings, cut)
    return None


def _some(whole: Samples | None, most: int | None) -> Samples | None:
    """Take at most so many of the test samples, evenly spaced."""
    if whole is None or most is None or most >= len(whole):
        return whole
    return whole.take(np.linspace(0, len(whole), most, endpoint=False).astype(np.int64))


def whole_test_set(
    settings: JobSettings, *, base_dir: Path, data: DataSet | None
) -> Samples | None:
    """All samples that a job may be tested on; None where its devices evaluate."""
    if settings.data.test == "devices":
        return None
    if settings.data.test != "source":
        other = load_source(settings.data.test, base_dir=base_dir)
        return other.test or other.train
    source = data or load_source(settings.data.source, base_dir=base_dir)
    if source.test is None:
        raise SettingsError(
            f"data.source {settings.data.source} has no test set; set data.test to 'devices', "
            "or to another source"
        )
    return source.test


def _check_clusters(settings: JobSettings) -> None:
    count = settings.devices.count
    try:
        plan_by_hand(
            [str(i) for i in range(count)], cut=0, num_clusters=num_clusters(settings, count)
        )
    except InfeasiblePlanError as error:
        raise SettingsError(f"plan.clusters: {error}") from error
