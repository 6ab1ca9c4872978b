"""The commands of `cpsl`: flags in, work done.

PyTorch takes seconds to import, and watching should start at once: so each command imports what it
needs when it runs.
"""

import argparse
import logging
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edge_coordinator.cli.comparing import compare_methods, replay_run, reproduce
from edge_coordinator.cli.job_of_flags import job_settings, simulated_settings
from edge_coordinator.cli.output import Output
from runtime.bus.broker_url import parse_broker_url
from runtime.errors import SettingsError
from runtime.service.arguments import parse_assignment
from runtime.service.process import without_collection

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from edge_coordinator.job.job import Job
    from edge_coordinator.job.settings import JobSettings
    from edge_coordinator.local.site import LocalSite
    from edge_coordinator.run.directory import RunDirectory
    from edge_coordinator.run.events import Observer
    from edge_coordinator.run.folder import Clock
    from edge_coordinator.training.edge_model import EdgeModel


def _local(flags: argparse.Namespace, console: Output) -> None:
    settings = job_settings(flags, console)  # A mistake in them is said before PyTorch is imported.
    from edge_coordinator.local.site import LocalSite, PageWanted
    from edge_coordinator.run.folder import check_clock, clock_of, make_run_folder
    from edge_coordinator.run.temporary import temporary_files_near

    if flags.web:
        from edge_coordinator.cli.watching import require_page

        require_page()
    if flags.resume:
        check_clock(flags.resume, clock_of(flags.resume), own="wall")
    path = flags.resume or make_run_folder(settings, now=datetime.now().astimezone())
    page = PageWanted(port=flags.web_port, opens=not flags.no_open) if flags.web else None
    base_dir = Path.cwd()
    site = LocalSite(settings, base_dir=base_dir, log_dir=path, page=page, spans=flags.spans)
    with temporary_files_near(path.parent), site:
        _train_locally(site, settings, path, flags, console)


def _train_locally(
    site: "LocalSite",
    settings: "JobSettings",
    path: Path,
    flags: argparse.Namespace,
    console: Output,
) -> None:
    """Do what is heavy while the agents start."""
    from edge_coordinator.cli.run_to_end import run_to_end
    from edge_coordinator.local.run import run_local
    from edge_coordinator.run.directory import RunDirectory
    from edge_coordinator.run.folder import forget_run_folder

    try:
        job, model = _prepared_locally(settings, path, console)
    except BaseException:
        if flags.resume is None:
            forget_run_folder(path)
        raise
    rules = settings.evaluation
    directory = (
        _resumed(path, job, model, clock="wall")
        if flags.resume
        else RunDirectory(path, rules=rules)
    )

    def train(observers: "Sequence[Observer]") -> Coroutine[None, None, None]:
        return run_local(
            site, job, model, say=console.say, directory=directory, observers=observers
        )

    run_to_end(console, job, model, directory, train, run=site.run, trackers=flags.track)
    if flags.web:
        console.say(f"to look at it again: cpsl show {directory.path}")


def _prepared_locally(
    settings: "JobSettings", path: Path, console: Output
) -> "tuple[Job, EdgeModel]":
    """Prepare a job with its data at hand; those it is trained on, the agents read themselves."""
    from edge_coordinator.cli.tables.shards import show_shards
    from edge_coordinator.job.prepare import prepare_job
    from edge_coordinator.job.settings import device_names
    from edge_coordinator.run.folder import write_job
    from runtime.datasets.sources import load_source

    data = load_source(settings.data.source, base_dir=Path.cwd())
    job, model = prepare_job(settings, run=secrets.randbits(64), base_dir=Path.cwd(), data=data)
    job.check_devices(names := device_names(settings.devices.count))
    job.check_named(names)
    show_shards(console, job.settings, data)
    write_job(path, job.settings)  # With the names of the classes.
    return job, model


def _coordinator(flags: argparse.Namespace, console: Output) -> None:
    settings = job_settings(flags, console)
    url = settings.broker.url
    if url is None:
        raise SettingsError("which broker? give --broker mqtt://host, or broker.url in the file")
    from edge_coordinator.fleet.exposure import exposure_of

    if warning := exposure_of(parse_broker_url(url)):
        log.warning("%s", warning)
    if flags.serve:
        from edge_coordinator.cli.control.serving import serve_queue

        serve_queue(flags, console, settings, url=url)
        return
    from edge_coordinator.cli.companions import companions_of
    from edge_coordinator.cli.run_to_end import run_to_end
    from edge_coordinator.job.prepare import prepare_job
    from edge_coordinator.monitor.record import history_so_far
    from edge_coordinator.serve.training import serve_job

    companions = companions_of(flags, url, settings, say=console.say)
    job, model = prepare_job(settings, run=secrets.randbits(64), base_dir=Path.cwd(), data=None)
    directory = _directory(flags, job, model)

    def train(observers: "Sequence[Observer]") -> Coroutine[None, None, None]:
        training = serve_job(
            job,
            model,
            url=url,
            observers=observers,
            progress=directory,
            on_waiting=console.print if flags.wait else None,
            history=history_so_far(directory.path),
            health_file=flags.health_file,
        )
        return companions.beside(training)

    run_to_end(console, job, model, directory, train, trackers=flags.track)


def _simulate(flags: argparse.Namespace, console: Output) -> None:
    from edge_coordinator.cli.run_to_end import run_to_end
    from edge_coordinator.simulation.prepare import prepare_simulation
    from runtime.datasets.sources import load_source

    settings, scenario = simulated_settings(flags, console)
    data = load_source(settings.data.source, base_dir=Path.cwd())
    prepared = prepare_simulation(
        settings, scenario, data, run=secrets.randbits(64), base_dir=Path.cwd()
    )
    job, model = prepared.job, prepared.model
    directory = _directory(flags, job, model, clock="virtual")
    devices = prepared.simulation.num_devices
    console.say(
        f"simulating scenario {scenario.name}: {devices} devices; "
        "the training is real, the seconds are simulated",
        "scenario",
        {"name": scenario.name, "num_devices": devices},
    )

    async def train(observers: "Sequence[Observer]") -> None:
        await prepared.simulation.run(observers=observers, progress=directory)

    run_to_end(console, job, model, directory, train, trackers=flags.track)


def _directory(
    flags: argparse.Namespace, job: "Job", model: "EdgeModel", *, clock: "Clock" = "wall"
) -> "RunDirectory":
    from edge_coordinator.run.directory import RunDirectory

    if flags.resume is None:
        return RunDirectory.make(job.settings, now=datetime.now().astimezone(), clock=clock)
    return _resumed(flags.resume, job, model, clock=clock)


def _resumed(path: Path, job: "Job", model: "EdgeModel", *, clock: "Clock") -> "RunDirectory":
    """Go on in a run's directory, and write down with what settings."""
    from edge_coordinator.run.directory import RunDirectory
    from edge_coordinator.run.folder import write_job

    rules = job.settings.evaluation
    directory = RunDirectory.resume(path, model, clock=clock, rules=rules)
    write_job(path, job.settings)
    return directory


@without_collection()
def _model(flags: argparse.Namespace, console: Output) -> None:
    import torch

    from edge_coordinator.cli.tables.model import model_document, model_tables
    from edge_coordinator.replanning.cut_choice import MOST_ROWS, choose_cuts, plot_cuts
    from edge_coordinator.run.plot_style import check_picture
    from profiles.cuts import device_round_bytes
    from runtime.models.cut_table import measure_cut_table
    from runtime.models.load import input_shape_of, load_network

    if flags.plot:
        check_picture(flags.plot)
    # Counting is many small batches: more threads wait for each other, on a busy machine for long.
    torch.set_num_threads(1)
    options = dict(parse_assignment(text) for text in flags.option)
    network = load_network(flags.name, options, seed=0)
    table = measure_cut_table(network, name=flags.name, input_shape=input_shape_of(network))
    sizes = {"batch_size": flags.batch_size, "local_epochs": flags.local_epochs}
    round_bytes = device_round_bytes(table, **sizes)
    most = table.num_layers if flags.all else MOST_ROWS
    shown = choose_cuts(table.cut_names[1:], round_bytes, most=most)
    console.answer(
        model_document(table, **sizes),
        model_tables(table.at(shown), num_cuts=table.num_layers, **sizes),
    )
    if flags.plot:
        plot_cuts(flags.plot, table, round_bytes, named=shown, batch_size=flags.batch_size)
        console.print(f"cost over depth: {flags.plot}", soft_wrap=True)


def _monitor(flags: argparse.Namespace, console: Output) -> None:
    from edge_coordinator.cli.watching import watch_site

    watch_site(flags, console)


def _show(flags: argparse.Namespace, console: Output) -> None:
    from edge_coordinator.cli.watching import show_runs

    show_runs(flags, console)


def _fleet(flags: argparse.Namespace, console: Output) -> None:
    from edge_coordinator.cli.fleet.commands import fleet_command

    fleet_command(flags, console)


def _schema(flags: argparse.Namespace, console: Output) -> None:
    from edge_coordinator.cli.schemas import print_schemas

    print_schemas(flags, console)


def _infer(flags: argparse.Namespace, console: Output) -> None:
    from edge_coordinator.cli.inference.commands import infer

    infer(flags, console)


def _completion(flags: argparse.Namespace, console: Output) -> None:
    from edge_coordinator.cli.completion import completion_script

    script = completion_script(flags.shell)
    console.answer({"shell": flags.shell, "script": script}, script)


def _look_after(flags: argparse.Namespace, console: Output) -> None:
    from edge_coordinator.cli.control.commands import look_after

    look_after(flags, console)


CONTROL = ("pause", "continue", "stop", "replan", "devices", "runs", "submit", "cancel")
COMMANDS: Mapping[str, Callable[[argparse.Namespace, Output], None]] = {
    "local": _local,
    "coordinator": _coordinator,
    "simulate": _simulate,
    "compare": compare_methods,
    "reproduce": reproduce,
    "replay": replay_run,
    "model": _model,
    "infer": _infer,
    "monitor": _monitor,
    "show": _show,
    "fleet": _fleet,
    "schema": _schema,
    "completion": _completion,
    **dict.fromkeys(CONTROL, _look_after),
}
