"""`cpsl`: everything on the edge server, or on a laptop."""

import argparse
import asyncio
import json
import logging
import secrets
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

from edge_coordinator.console import RunView
from edge_coordinator.job import Job, prepare_job
from edge_coordinator.job_file import load_job, parse_assignment
from edge_coordinator.local import run_local, show_shards
from edge_coordinator.progress import Observer
from edge_coordinator.record import RunDirectory
from edge_coordinator.serve import serve_job
from edge_coordinator.show_model import model_table
from edge_coordinator.training.edge_model import EdgeModel
from runtime.allocator import keep_freed_memory
from runtime.datasets.sources import load_source
from runtime.errors import EdgeError, SettingsError, root_cause
from runtime.models.cut_table import measure_cut_table
from runtime.models.load import input_shape_of, load_network
from runtime.schema import PUBLISHED, dump_schema, generate_schema

# Flag, key of the job file, metavar. Every other key goes by --set.
_JOB_FLAGS = (
    ("devices", "devices.count", "N"),
    ("clusters", "plan.clusters", "M"),
    ("cluster-size", "plan.cluster_size", "K"),
    ("cut", "plan.cut", "LAYER"),
    ("plan", "plan.mode", "MODE"),
    ("rounds", "training.rounds", "T"),
    ("local-epochs", "training.local_epochs", "L"),
    ("batch-size", "training.batch_size", "B"),
    ("method", "training.method", "NAME"),
    ("learning-rate", "training.server_optimizer.learning_rate", "RATE"),
    ("model", "model.name", "NAME"),
    ("data", "data.source", "SOURCE"),
    ("partition", "data.partition", "HOW"),
    ("test", "data.test", "SOURCE"),
    ("target-accuracy", "evaluation.target_accuracy", "FRACTION"),
    ("scenario", "devices.scenario", "NAME"),
    ("seed", "seed", "N"),
    ("site", "site", "NAME"),
    ("output", "output", "DIR"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    flags = _parser().parse_args(arguments)
    console = Console()
    handler = RichHandler(console=console, show_path=False, show_level=False, log_time_format="%X")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    keep_freed_memory()
    try:
        exit_code: int = flags.run(flags, console)
    except KeyboardInterrupt:
        return 130
    except (EdgeError, BaseExceptionGroup) as error:
        cause = root_cause(error)
        if not isinstance(cause, EdgeError):
            raise
        print(f"cpsl {flags.command}: {cause}", file=sys.stderr)
        return 1
    return exit_code


def _local(flags: argparse.Namespace, console: Console) -> int:
    settings = load_job(flags.config, _overrides(flags))
    base_dir = Path.cwd()
    data = load_source(settings.data.source, base_dir=base_dir)
    job, model = prepare_job(settings, run=secrets.randbits(64), base_dir=base_dir, data=data)
    show_shards(console, settings, data)
    return _run(console, job, model, flags, base_dir=base_dir, local=True)


def _coordinator(flags: argparse.Namespace, console: Console) -> int:
    settings = load_job(flags.config, _overrides(flags))
    if settings.broker.url is None:
        raise SettingsError(
            "which broker? give --broker mqtt://host:1883, or broker.url in the file"
        )
    base_dir = Path.cwd()
    job, model = prepare_job(settings, run=secrets.randbits(64), base_dir=base_dir, data=None)
    return _run(console, job, model, flags, base_dir=base_dir, local=False)


def _run(
    console: Console,
    job: Job,
    model: EdgeModel,
    flags: argparse.Namespace,
    *,
    base_dir: Path,
    local: bool,
) -> int:
    """Train, then write down what there is to write, however it ended."""
    directory = RunDirectory.make(job.settings, now=datetime.now())
    url = job.settings.broker.url
    try:
        with RunView(console) as view:
            observers: list[Observer] = [view, directory]
            if local:
                training = run_local(
                    job,
                    model,
                    console=console,
                    directory=directory,
                    observers=observers,
                    base_dir=base_dir,
                )
            else:
                assert url is not None
                on_waiting = console.print if flags.wait else None
                training = serve_job(
                    job, model, url=url, observers=observers, on_waiting=on_waiting
                )
            asyncio.run(training)
    except BaseException:
        _finish(console, directory, job, model, complete=False)
        raise
    _finish(console, directory, job, model, complete=True)
    return 0


def _finish(
    console: Console, directory: RunDirectory, job: Job, model: EdgeModel, *, complete: bool
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
        f"results in {directory.path}"
    )


def _model(flags: argparse.Namespace, console: Console) -> int:
    options = dict(parse_assignment(text) for text in flags.option)
    network = load_network(flags.name, options, seed=0)
    table = measure_cut_table(network, name=flags.name, input_shape=input_shape_of(network))
    console.print(model_table(table, batch_size=flags.batch_size, local_epochs=flags.local_epochs))
    return 0


def _schema(flags: argparse.Namespace, console: Console) -> int:  # noqa: ARG001
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
    given = {
        key: _as_toml(getattr(flags, flag.replace("-", "_")))
        for flag, key, _ in _JOB_FLAGS
        if getattr(flags, flag.replace("-", "_")) is not None
    }
    if flags.broker is not None:
        given[flags.broker_key] = flags.broker
    return given | dict(parse_assignment(text) for text in flags.set)


def _as_toml(text: str) -> object:
    return parse_assignment(f"value={text}")[1]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cpsl",
        description="Train one network across many devices by cluster-based parallel split "
        "learning, over MQTT.",
    )
    parser.add_argument("--version", action="version", version=f"cpsl {version('cpsl')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    local = commands.add_parser(
        "local",
        help="train with local devices and a broker of its own",
        description="Start a broker, the agents and the coordinator on this machine, and train.",
    )
    _add_job_flags(local)
    local.add_argument("--broker", metavar="KIND", help="auto, mosquitto or amqtt")
    local.set_defaults(run=_local, broker_key="broker.local")
    coordinator = commands.add_parser(
        "coordinator",
        help="train with the devices of a broker",
        description="Coordinate the agents that are connected to a broker; they may come later.",
    )
    _add_job_flags(coordinator)
    coordinator.add_argument("--broker", metavar="URL", help="mqtt://host[:port] or mqtts://…")
    coordinator.add_argument(
        "--wait", action="store_true", help="if the broker is not there, wait for it"
    )
    coordinator.set_defaults(run=_coordinator, broker_key="broker.url")
    model = commands.add_parser("model", help="print what each cut of a network costs")
    model.add_argument("name", help="built-in name, or package.module:factory")
    model.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    model.add_argument("--batch-size", type=int, default=16, metavar="B")
    model.add_argument("--local-epochs", type=int, default=1, metavar="L")
    model.set_defaults(run=_model)
    schema = commands.add_parser("schema", help="print the JSON Schema of what is published")
    schema.add_argument("name", nargs="?", help=", ".join(PUBLISHED) + "; all if left out")
    schema.add_argument("--write", type=Path, metavar="DIR", help="write NAME.json files instead")
    schema.set_defaults(run=_schema)
    return parser


def _add_job_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="JOB.toml", help="the job file")
    for flag, key, metavar in _JOB_FLAGS:
        parser.add_argument(f"--{flag}", metavar=metavar, help=f"{key} of the job file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any key of the job file, as in --set training.schedule.name=cosine",
    )


if __name__ == "__main__":
    sys.exit(main())
