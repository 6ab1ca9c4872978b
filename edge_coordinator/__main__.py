"""`cpsl`: everything on the edge server, or on a laptop."""

import argparse
import asyncio
import json
import logging
import os
import secrets
import sys
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.logging import RichHandler

from edge_coordinator.command_line import JOB_FLAGS, build_parser
from runtime.allocator import keep_freed_memory
from runtime.broker_url import TlsFiles, parse_broker_url
from runtime.errors import EdgeError, SettingsError, root_cause

# PyTorch takes seconds to import, and watching should start at once: so each command imports
# what it needs when it runs.
if TYPE_CHECKING:
    from edge_coordinator.job import Job
    from edge_coordinator.progress import Observer
    from edge_coordinator.record import RunDirectory
    from edge_coordinator.settings import JobSettings
    from edge_coordinator.training.edge_model import EdgeModel


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    flags = build_parser().parse_args(arguments)
    console = Console()
    handler = RichHandler(console=console, show_path=False, show_level=False, log_time_format="%X")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    keep_freed_memory()
    try:
        exit_code: int = _COMMANDS[flags.command](flags, console)
    except KeyboardInterrupt:
        return 130
    except asyncio.CancelledError:
        return 143  # Terminated, as a shell says it.
    except (EdgeError, BaseExceptionGroup) as error:
        cause = root_cause(error)
        if not isinstance(cause, EdgeError):
            raise
        print(f"cpsl {flags.command}: {cause}", file=sys.stderr)
        return 1
    return exit_code


def _local(flags: argparse.Namespace, console: Console) -> int:
    from edge_coordinator.job import prepare_job
    from edge_coordinator.local import run_local, show_shards
    from runtime.datasets.sources import load_source

    settings = _settings(flags)
    data = load_source(settings.data.source, base_dir=Path.cwd())
    job, model = prepare_job(settings, run=secrets.randbits(64), base_dir=Path.cwd(), data=data)
    show_shards(console, settings, data)
    directory = _directory(flags, job, model)

    def train(observers: "Sequence[Observer]") -> Coroutine[None, None, None]:
        return run_local(
            job,
            model,
            console=console,
            directory=directory,
            observers=observers,
            base_dir=Path.cwd(),
        )

    return _run(console, job, model, directory, train)


def _coordinator(flags: argparse.Namespace, console: Console) -> int:
    from edge_coordinator.job import prepare_job
    from edge_coordinator.serve import serve_job

    settings = _settings(flags)
    url = settings.broker.url
    if url is None:
        raise SettingsError("which broker? give --broker mqtt://host, or broker.url in the file")
    job, model = prepare_job(settings, run=secrets.randbits(64), base_dir=Path.cwd(), data=None)
    directory = _directory(flags, job, model)

    def train(observers: "Sequence[Observer]") -> Coroutine[None, None, None]:
        return serve_job(
            job,
            model,
            url=url,
            observers=observers,
            progress=directory,
            on_waiting=console.print if flags.wait else None,
        )

    return _run(console, job, model, directory, train)


def _settings(flags: argparse.Namespace) -> "JobSettings":
    from edge_coordinator.job_file import load_job

    if flags.resume is None:
        return load_job(flags.config, _overrides(flags))
    if flags.config is not None:
        raise SettingsError("--resume goes on with the job of its run; leave --config out")
    return load_job(flags.resume / "job.toml", _overrides(flags))


def _directory(flags: argparse.Namespace, job: "Job", model: "EdgeModel") -> "RunDirectory":
    from edge_coordinator.record import RunDirectory

    if flags.resume is None:
        return RunDirectory.make(job.settings, now=datetime.now().astimezone())
    return RunDirectory.resume(flags.resume, model)


def _run(
    console: Console,
    job: "Job",
    model: "EdgeModel",
    directory: "RunDirectory",
    train: Callable[["Sequence[Observer]"], Coroutine[None, None, None]],
) -> int:
    """Train, then write down what there is to write, however it ended."""
    from edge_coordinator.console import RunView
    from edge_coordinator.termination import until_terminated

    if directory.reports and job.is_over(directory.reports[-1]):
        rounds = directory.reached.round
        console.print(f"all {rounds} rounds are done; to train on, give a larger --rounds")
        _finish(console, directory, job, model, complete=True)
        return 0
    try:
        with RunView(console) as view:
            asyncio.run(until_terminated(train([view, directory])))
    except BaseException:
        _finish(console, directory, job, model, complete=False)
        raise
    _finish(console, directory, job, model, complete=True)
    return 0


def _finish(
    console: Console, directory: "RunDirectory", job: "Job", model: "EdgeModel", *, complete: bool
) -> None:
    """Write the model and the curves, and say where they are."""
    if not directory.reports:
        if not directory.discard_if_empty():
            console.print(f"no round was finished; the settings and logs are in {directory.path}")
        return
    with console.status("writing the model and the curves"):
        directory.save_weights(model.network)
        directory.save_curves()
        if complete:
            directory.save_onnx(model.network, job.shapes[0])
    last = directory.reports[-1]
    accuracy = next((r.test_accuracy for r in reversed(directory.reports) if r.test_accuracy), None)
    outcome = f"test accuracy {accuracy:.2%}, " if accuracy is not None else ""
    state = "trained" if complete else "stopped after"
    console.print(
        f"{state} {last.round} rounds in {last.elapsed_s:.1f} s: {outcome}"
        f"results in {directory.path}",
        soft_wrap=True,
    )
    if not complete:
        console.print(f"to go on, give --resume {directory.path}", soft_wrap=True)


def _model(flags: argparse.Namespace, console: Console) -> int:
    from edge_coordinator.job_file import parse_assignment
    from edge_coordinator.show_model import model_table
    from runtime.models.cut_table import measure_cut_table
    from runtime.models.load import input_shape_of, load_network

    options = dict(parse_assignment(text) for text in flags.option)
    network = load_network(flags.name, options, seed=0)
    table = measure_cut_table(network, name=flags.name, input_shape=input_shape_of(network))
    console.print(model_table(table, batch_size=flags.batch_size, local_epochs=flags.local_epochs))
    return 0


def _monitor(flags: argparse.Namespace, console: Console) -> int:
    from edge_coordinator.monitor import monitor
    from edge_coordinator.show_site import LiveSite
    from edge_coordinator.site_line import SiteLines

    if not (flags.once or flags.json or console.is_terminal):
        raise SettingsError("the live view needs a terminal; without one, take --once or --json")
    broker = str(parse_broker_url(flags.broker))
    tls = TlsFiles(flags.cafile, flags.certfile, flags.keyfile)
    site, lines = LiveSite(console, broker=broker), SiteLines(_print_line, broker=broker)
    show = lines.show if flags.json else site.print if flags.once else site.show
    watching = monitor(flags.broker, flags.site, tls=tls, show=show, once=flags.once)
    try:
        asyncio.run(watching)
    except* KeyboardInterrupt:
        pass  # That is how one stops watching.
    except* BrokenPipeError:  # Whoever read our lines has had enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        site.close()
    return 0


def _print_line(line: str) -> None:
    print(line, flush=True)


def _schema(flags: argparse.Namespace, console: Console) -> int:  # noqa: ARG001
    from runtime.schema import PUBLISHED, dump_schema, generate_schema

    if flags.write is not None:
        for name in [flags.name] if flags.name else PUBLISHED:
            (flags.write / f"{name}.json").write_text(dump_schema(name), encoding="utf-8")
    elif flags.name is not None:
        print(dump_schema(flags.name), end="")
    else:
        print(json.dumps({name: generate_schema(name) for name in PUBLISHED}, indent=2))
    return 0


def _overrides(flags: argparse.Namespace) -> dict[str, object]:
    """Flags that were given, as keys of the job file; --set goes over them."""
    from edge_coordinator.job_file import parse_assignment

    given = {
        key: parse_assignment(f"value={getattr(flags, flag.replace('-', '_'))}")[1]
        for flag, key, _ in JOB_FLAGS
        if getattr(flags, flag.replace("-", "_")) is not None
    }
    if flags.broker is not None:
        given[flags.broker_key] = flags.broker
    return given | dict(parse_assignment(text) for text in flags.set)


_COMMANDS = {
    "local": _local,
    "coordinator": _coordinator,
    "model": _model,
    "monitor": _monitor,
    "schema": _schema,
}


if __name__ == "__main__":
    sys.exit(main())
