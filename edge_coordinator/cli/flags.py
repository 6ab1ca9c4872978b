"""What `cpsl` can be told: its commands and their flags."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from edge_coordinator.cli.control.flags import add_control, add_serving
from edge_coordinator.cli.fleet.flags import add_fleet
from edge_coordinator.cli.inference.flags import add_inference
from edge_coordinator.cli.watching_flags import add_companions, add_spans, add_watching, port
from runtime.distribution import VersionAction
from runtime.offered import TRACKERS
from runtime.service.arguments import Parser
from runtime.service.logs import LOG_FORMATS

# Flag, key of the job file, metavar. Every other key goes by --set.
JOB_FLAGS = (
    ("devices", "devices.count", "N"),
    ("clusters", "plan.clusters", "M"),
    ("cluster-size", "plan.cluster_size", "K"),
    ("cut", "plan.cut", "LAYER"),
    ("engine", "devices.engine", "NAME"),
    ("codec", "codec.name", "NAME"),
    ("plan", "plan.mode", "MODE"),
    ("rounds", "training.rounds", "T"),
    ("local-epochs", "training.local_epochs", "L"),
    ("batch-size", "training.batch_size", "B"),
    ("batch-sizes", "plan.batch_sizes", "HOW"),
    ("micro-batches", "training.micro_batches", "N"),
    ("phi", "training.phi", "SHARE"),
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
SIMULATION_FLAGS = (("spread", "devices.spread", "FRACTION"),)  # Of commands that simulate.

METHODS = ("cpsl", "sl", "fl", "cl")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; `command` of what it parses names the command."""
    parser: argparse.ArgumentParser = Parser(
        prog="cpsl",
        description="Train one network across many devices by cluster-based parallel split "
        "learning, over MQTT.",
    )
    parser.add_argument("--version", action=VersionAction, nargs=0, help="print the version")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_running(commands)
    _add_comparing(commands)
    _add_model(commands.add_parser("model", help="print what each cut of a network costs"))
    schema = commands.add_parser("schema", help="print the JSON Schema of what is published")
    schema.add_argument("name", nargs="?", help="which one; all if left out")
    schema.add_argument("--asyncapi", action="store_true", help="all of it as an AsyncAPI document")
    schema.add_argument("--write", type=Path, metavar="DIR", help="write NAME.json files instead")
    add_inference(commands)
    add_watching(commands)
    add_fleet(commands)
    add_control(commands)
    completion = commands.add_parser("completion", help="print a script to complete commands by")
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="whose")
    for command in leaf_parsers(parser):
        _add_output(command)
    return parser


def leaf_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Give the parser of each command, or of each of its actions where it has some."""
    actions = parser._actions  # noqa: SLF001 - argparse has no other way
    below = [each for each in actions if isinstance(each, argparse._SubParsersAction)]  # noqa: SLF001
    for action in below:
        for command in action.choices.values():
            yield from leaf_parsers(command)
    if not below:
        yield parser


def _add_output(parser: argparse.ArgumentParser) -> None:
    """Add what every command can be told of how it prints."""
    prints = parser.add_argument_group("what it prints").add_argument
    prints("--json", action="store_true", help="a document, or a line an event, as JSON")
    prints("--quiet", action="store_true", help="nothing but warnings and what was asked for")
    prints(
        "--log-format",
        choices=LOG_FORMATS,
        default="text",
        help="what it prints and logs: lines for people, or JSON (text)",
    )


def _add_running(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    local = commands.add_parser(
        "local",
        help="train with local devices and a broker of its own",
        description="Start a broker, the agents and the coordinator on this machine, and train.",
    )
    _add_job_flags(local, JOB_FLAGS)
    local.add_argument("--broker", metavar="KIND", help="auto, mosquitto or amqtt")
    local.set_defaults(broker_key="broker.local")
    add_spans(local)
    local.add_argument("--web", action="store_true", help="serve a page to watch the run in")
    local.add_argument("--web-port", type=port, metavar="PORT", help="of the page")
    local.add_argument("--no-open", action="store_true", help="do not open the page in a browser")
    coordinator = commands.add_parser(
        "coordinator",
        help="train with the devices of a broker",
        description="Coordinate the agents that are connected to a broker; they may come later.",
    )
    _add_job_flags(coordinator, JOB_FLAGS)
    add = coordinator.add_argument
    add("--broker", metavar="URL", help="mqtt://host[:port], mqtts, ws or wss://…")
    add("--wait", action="store_true", help="if the broker is not there, wait for it")
    add_serving(coordinator)
    add_spans(coordinator)
    add_companions(coordinator)
    health_help = "write there every 5 s that it is alive, as JSON"
    add("--health-file", type=Path, metavar="FILE", help=health_help)
    coordinator.set_defaults(broker_key="broker.url")


def _add_comparing(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    simulate = commands.add_parser(
        "simulate",
        help="train in one process under a virtual clock",
        description="Train a job for real, in one process and without a broker, while a virtual "
        "clock tells the seconds that a scenario's devices, links and server would take. Takes "
        "the same job file; for the same plans and seed it ends in the weights of the real run.",
    )
    _add_job_flags(simulate, JOB_FLAGS + SIMULATION_FLAGS)
    _add_compare(
        commands.add_parser(
            "compare",
            help="methods side by side: a report with tables and plots",
            description="Simulate a job with several methods on one scenario, and write a report: "
            "accuracy over rounds and seconds, what a target accuracy costs, where the seconds "
            "go, what planning buys, the cost of every cut.",
        )
    )
    replay = commands.add_parser(
        "replay",
        help="what a recorded run would have taken under another plan",
        description="Price the rounds of a run by what was measured in it, for its own job with "
        "the changes that are given here. Nothing is trained.",
    )
    replay.add_argument("run", type=Path, metavar="RUNDIR", help="of cpsl local or coordinator")
    _add_job_flags(replay, JOB_FLAGS, is_of_run=True)
    _add_reproduce(
        commands.add_parser(
            "reproduce",
            help="the paper's comparison: published figures beside ours",
            description="Train the paper's setting with every method and several seeds on MNIST, "
            "and write a report with the published figures beside ours.",
        )
    )


def _add_job_flags(
    parser: argparse.ArgumentParser,
    job_flags: tuple[tuple[str, str, str], ...],
    *,
    can_resume: bool = True,
    is_of_run: bool = False,
) -> None:
    if not is_of_run:
        parser.add_argument("--config", type=Path, metavar="JOB.toml", help="the job file")
    if can_resume and not is_of_run:
        parser.add_argument(
            "--resume", type=Path, metavar="RUNDIR", help="go on from the last checkpoint of a run"
        )
        parser.add_argument(
            "--track",
            type=_tracker,
            action="append",
            default=[],
            metavar="NAME",
            help="keep each round's figures there too: tensorboard, mlflow, wandb (offline), or "
            "your own package.module:factory",
        )
    parser.add_argument(
        "--allow-code",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="run code of this package, or this PACKAGE.MODULE:NAME, where the job of an earlier "
        "run names it (--resume, --plan replay:…)",
    )
    for flag, key, metavar in job_flags:
        parser.add_argument(f"--{flag}", metavar=metavar, help=f"{key} of the job file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any key of the job file, as in --set training.schedule.name=cosine",
    )


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--methods",
        type=_methods,
        default=list(METHODS),
        metavar="LIST",
        help="of cpsl, sl, fl and cl, with commas between; all by default",
    )
    _add_job_flags(parser, JOB_FLAGS + SIMULATION_FLAGS, can_resume=False)
    _add_runs(parser, num_seeds=1)
    parser.add_argument(
        "--rates",
        choices=("given", "per-sample"),
        default="given",
        help="the job's learning rate for every method, or that times the devices in a step",
    )


def _add_reproduce(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("what", choices=("paper",), help="whose comparison")
    add("--data", metavar="SOURCE", help="folder of MNIST's files, or any source of a job's")
    add("--rounds", type=_positive, default=150, metavar="T", help="of each run (150)")
    add("--learning-rate", type=float, default=0.05, metavar="RATE", help="SL's (0.05)")
    add("--target-accuracy", type=float, default=0.95, metavar="FRACTION", help="(0.95)")
    add("--output", type=Path, default=Path("runs"), metavar="DIR", help="where the report goes")
    _add_runs(parser, num_seeds=3)


def _add_runs(parser: argparse.ArgumentParser, *, num_seeds: int) -> None:
    parser.add_argument(
        "--seeds",
        type=_positive,
        default=num_seeds,
        metavar="N",
        help=f"train each method with so many seeds ({num_seeds})",
    )
    parser.add_argument(
        "--workers",
        type=_positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes that train side by side (one a core)",
    )
    parser.add_argument(
        "--executor",
        metavar="dask://HOST:PORT",
        help="train on the workers of a Dask scheduler instead",
    )
    parser.add_argument(
        "--draws",
        type=_positive,
        default=10,
        metavar="N",
        help="states drawn for each point of what planning buys (10)",
    )


def _methods(text: str) -> list[str]:
    methods = list(dict.fromkeys(text.replace(",", " ").split()))
    unknown = [method for method in methods if method not in METHODS]
    if unknown or not methods:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of methods; they are {', '.join(METHODS)}"
        )
    return methods


def _tracker(name: str) -> str:
    if name not in TRACKERS and ":" not in name:
        raise argparse.ArgumentTypeError(
            f"{name!r} is none of {', '.join(TRACKERS)}, and your own is package.module:factory"
        )
    return name


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("name", help="built-in name, or package.module:factory")
    add("--option", action="append", default=[], metavar="NAME=VALUE")
    add("--batch-size", type=_positive, default=16, metavar="B")
    add("--local-epochs", type=_positive, default=1, metavar="L")
    add("--all", action="store_true", help="every cut, of a network of hundreds too")
    add("--plot", type=Path, metavar="FILE", help="draw cost over depth: .png, .pdf or .svg")
