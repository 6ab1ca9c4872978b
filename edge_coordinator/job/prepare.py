"""From settings to a job: everything in them that has a name is looked up and tried."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from edge_coordinator.job.classes import agree_on_classes, check_outputs, check_test_set
from edge_coordinator.job.cuts import deepest_cut, given_cut, own_cuts
from edge_coordinator.job.from_samples import (
    agree_on_class_weights,
    agree_on_inputs,
    some_of,
    whole_test_set,
)
from edge_coordinator.job.given_plans import (
    GivenPlans,
    PlansByHand,
    check_clusters,
    own_planning,
)
from edge_coordinator.job.job import Job, own_stop
from edge_coordinator.job.loss_check import check_loss
from edge_coordinator.job.replay import read_replay
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.job.turn_codecs import named_codecs, turn_codecs
from edge_coordinator.job.whole_batches import cuts_to_avoid, kept_batches
from edge_coordinator.training.aggregation import aggregation
from edge_coordinator.training.computing.accelerator import Accelerator, open_accelerator
from edge_coordinator.training.computing.ranks import Ranks
from edge_coordinator.training.computing.task import WorkerTask
from edge_coordinator.training.edge_model import EdgeModel
from edge_coordinator.training.metrics import Metric, load_metric
from edge_coordinator.training.start import choose_what_learns, start_from
from edge_coordinator.training.turn import Training
from runtime.addresses import own_path
from runtime.datasets.samples import DataSet, Samples
from runtime.errors import SettingsError
from runtime.models.cut_table import measure_cut_table
from runtime.models.load import (
    check_sample_shape,
    input_shape_of,
    layer_shapes,
    load_network,
)
from runtime.models.losses import Loss, load_loss
from runtime.models.sequence import Network, Shape, layers_of
from runtime.service.process import without_collection
from runtime.wire.codecs.names import TurnCodecs
from runtime.wire.commands import Assignment


@without_collection()
def prepare_job(
    settings: JobSettings, *, run: int, base_dir: Path, data: DataSet | None
) -> tuple[Job, EdgeModel]:
    """Look everything up, once; SettingsError for whatever does not fit together.

    `data` is the source where it has been loaded already (local mode).
    """
    settings, accelerator = _on_devices(settings)
    plain = load_loss(settings.training.loss, base_dir=base_dir)
    metric = load_metric(settings.evaluation.metric, base_dir=base_dir)
    test = whole_test_set(settings, base_dir=base_dir, data=data)
    train = data.train if data else None
    given = settings.data.classes
    settings, test = agree_on_classes(settings, test=test, train=train)
    settings, test = agree_on_inputs(settings, test=test, train=train)
    known = data.sample_shape if data else test.sample_shape if test else None
    network = _network(settings, sample_shape=known, base_dir=base_dir)
    shape = known or input_shape_of(network)
    check_sample_shape(network, shape)
    settings = _begun(settings, network, base_dir=base_dir)
    num_outputs = _num_classes(settings, network, shape)
    settings = agree_on_class_weights(settings, test=test, train=train, num_outputs=num_outputs)
    training = settings.training
    device_spec, carry_state = training.device_spec(), training.carry_optimizer_state
    codecs = turn_codecs(settings.codec, device_spec, carry_state=carry_state)
    loss = load_loss(training.loss, base_dir=base_dir, options=training.loss_options())
    assignment = _assignment(settings, network, codecs, run=run, shape=shape, stated=bool(given))
    check_outputs(settings, num_outputs=assignment.num_classes, train=train)
    if test is not None:
        check_test_set(test, settings, shape=shape, num_classes=assignment.num_classes)
        name, rules = settings.training.loss, settings.evaluation
        check_loss(network, plain, test, name=name, rules=rules, metric=metric)
    job = _made(
        settings, assignment, network, loss, codecs, shape=shape, test=test, base_dir=base_dir
    )
    _check_plan(job)
    learning = _training(settings, loss, plain, metric, base_dir=base_dir)
    ranks = _ranks(settings, sample_shape=known, base_dir=base_dir)
    return job, EdgeModel(network, replace(learning, accelerator=accelerator), ranks)


def _on_devices(settings: JobSettings) -> tuple[JobSettings, Accelerator]:
    """Open what the server side computes on; the settings name it, for whoever resumes the run.

    Where there are several, the first is the one that does whatever is not shared out.
    """
    training = settings.training
    opened = [
        open_accelerator(name, autocast=training.autocast, compiles=training.compile)
        for name in training.server_devices
    ]
    names = tuple(str(each.device) for each in opened)
    training = training.model_copy(update={"server_device": names if names[1:] else names[0]})
    return settings.model_copy(update={"training": training}), opened[0]


def _ranks(settings: JobSettings, *, sample_shape: Shape | None, base_dir: Path) -> Ranks | None:
    """Tell what computes along how to; None if one device computes."""
    model, training = settings.model, settings.training
    names = training.server_devices
    if len(names) == 1:
        return None
    task = WorkerTask(
        network=model.name,
        options=model.options,
        frozen=model.freeze,
        seed=settings.seed,
        sample_shape=sample_shape,
        base_dir=base_dir.resolve(),
        optimizer=training.server_optimizer.spec(),
        device=names[0],
        autocast=training.autocast,
        num_threads=max(1, settings.server_threads // len(names)),
    )
    return Ranks(task, names)


def _made(
    settings: JobSettings,
    assignment: Assignment,
    network: Network,
    loss: Loss,
    codecs: tuple[TurnCodecs, ...],
    *,
    shape: Shape,
    test: Samples | None,
    base_dir: Path,
) -> Job:
    """Put together what was looked up."""
    names, cut = tuple(layers_of(network)), given_cut(settings, network)
    why_whole, why_equal = kept_batches(settings, network, loss, shape=shape, test=test)
    refused, plain = cuts_to_avoid(settings, network, shape=shape)
    return Job(
        settings=settings,
        assignment=assignment,
        layer_names=names,
        shapes=(shape, *layer_shapes(network, shape)),
        cut=cut,
        own_cuts=own_cuts(settings, network),
        given_plans=_given_plans(
            settings, cut, network, layer_names=names, base_dir=base_dir, is_whole=bool(why_whole)
        ),
        test=some_of(test, settings.evaluation.max_samples),
        refused_cuts=refused,
        plain_cuts=plain,
        codecs=codecs,
        whole_batches=why_whole,
        equal_batches=why_equal,
        stop=own_stop(settings.evaluation.stop, base_dir=base_dir),
        own_planning=own_planning(
            settings,
            partial(measure_cut_table, network, name=settings.model.name, input_shape=shape),
            base_dir=base_dir,
        ),
    )


def _check_plan(job: Job) -> None:
    """SettingsError for plans that are not to be had."""
    if job.settings.codec.is_planned and job.settings.plan.is_by_hand:
        raise SettingsError(
            "codec.name = 'auto' is chosen by plans, and by hand nothing is: name a codec, or take "
            "plan.mode = 'auto'"
        )
    if job.settings.training.phis and job.settings.plan.is_by_hand:
        raise SettingsError(
            "training.phi = 'auto' is chosen by plans, and by hand nothing is: give a share from 0 "
            "to 1, or take plan.mode = 'auto'"
        )
    given = {} if job.cut is None else {"plan.cut": job.cut}
    for key, cut in (given | {f"plan.cuts.{d}": own for d, own in job.own_cuts.items()}).items():
        if cut in job.refused_cuts:
            raise SettingsError(f"{key} = {cut}: {job.refused_cuts[cut]}")
    check_clusters(job.settings)


def _network(settings: JobSettings, *, sample_shape: Shape | None, base_dir: Path) -> Network:
    return load_network(
        settings.model.name,
        settings.model.options,
        seed=settings.seed,
        sample_shape=sample_shape,
        base_dir=base_dir,
    )


def _begun(settings: JobSettings, network: Network, *, base_dir: Path) -> JobSettings:
    """Give the network the weights that it begins with; the settings, with their digest."""
    model, training = settings.model, settings.training
    if model.start is not None:
        sha256 = start_from(
            network,
            own_path(model.start, base_dir=base_dir),
            leave=model.start_except,
            sha256=model.start_digest,
        )
        model = model.model_copy(update={"start_digest": sha256})
    elif model.start_except or model.start_digest:
        raise SettingsError("model.start_except and start_digest are of model.start, not given")
    given = training.device_optimizer
    no_decay = {"training.server_optimizer.no_decay": training.server_optimizer.no_decay}
    if given is not None:
        no_decay["training.device_optimizer.no_decay"] = given.no_decay
    choose_what_learns(network, frozen=model.freeze, no_decay=no_decay)
    return settings.model_copy(update={"model": model})


def _training(
    settings: JobSettings, loss: Loss, plain: Loss, metric: Metric, *, base_dir: Path
) -> Training:
    return Training(
        server_optimizer=settings.training.server_optimizer.spec(),
        device_optimizer=settings.training.device_spec(),
        carry_state=settings.training.carry_optimizer_state,
        aggregate=aggregation(
            settings.training.aggregation, trim=settings.training.trim, base_dir=base_dir
        ),
        loss=loss,
        seed=settings.seed,
        metric=metric,
        clip=settings.training.clip.of_server(),
        evaluated_by=plain,
    )


def _assignment(
    settings: JobSettings,
    network: Network,
    codecs: Sequence[TurnCodecs],
    *,
    run: int,
    shape: tuple[int, ...],
    stated: bool,
) -> Assignment:
    """Say what a device is told; `stated` if the job itself lists its classes."""
    return Assignment(
        run=run,
        network=settings.model.name,
        options=settings.model.options,
        loss=settings.training.loss,
        seed=settings.seed,
        batch_size=settings.training.batch_size,
        held_out=settings.data.held_out if settings.data.test == "devices" else 0.0,
        max_evaluation_samples=settings.data.max_evaluation_samples,
        num_classes=_num_classes(settings, network, shape),
        optimizer=settings.training.device_spec(),
        carry_state=settings.training.carry_optimizer_state,
        measure=settings.plan.mode == "auto",
        deepest_cut=deepest_cut(settings, network),
        classes=settings.data.classes or None,
        normalisation=settings.data.normalise.normalisation(),
        numbers_count_classes=stated or None,
        codecs=named_codecs(codecs),
        frozen=settings.model.freeze or None,
        loss_options=settings.training.loss_options(),
    )


def _num_classes(settings: JobSettings, network: Network, shape: Shape) -> int | None:
    """Count the classes of which a sample has one; None if that is not what is learnt."""
    outputs = layer_shapes(network, shape)[-1]
    classifies = settings.training.loss == "cross_entropy" and len(outputs) == 1
    return outputs[0] if classifies else None


def _given_plans(
    settings: JobSettings,
    cut: int | None,
    network: Network,
    *,
    layer_names: Sequence[str],
    base_dir: Path,
    is_whole: bool,
) -> GivenPlans | None:
    """Open the source of the plans; None if they are planned as the run goes."""
    if settings.plan.replayed is not None:
        run = settings.plan.replayed
        return read_replay(run, settings, layer_names=layer_names, base_dir=base_dir)
    if settings.plan.is_by_hand:
        assert cut is not None
        wanted = settings.training.micro_batches
        own = own_cuts(settings, network)
        return PlansByHand(settings, cut, own, 1 if is_whole or wanted == "auto" else wanted)
    return None
