"""The words and flags of `cpsl-agent`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from device_agent.limits import DEFAULT_STEP_FLOP, is_layer
from runtime.distribution import VersionAction
from runtime.offered import (
    DEFAULT_CHUNK_BYTES,
    ENGINES,
    KNOWN_INPUTS,
    KNOWN_SOURCES,
    LEAST_CHUNK_BYTES,
    MOST_CHUNK_BYTES,
)
from runtime.service.arguments import Parser
from runtime.service.logs import LOG_FORMATS, LOG_LEVELS

Action = Literal["serve", "profile", "infer"]
ACTIONS: tuple[Action, ...] = ("profile", "infer")
"""Words that may come first; without one it serves."""
MOST_SECONDS = 86_400.0


def build_parser() -> argparse.ArgumentParser:
    """Parse what an agent is started with."""
    parser: argparse.ArgumentParser = Parser(
        prog="cpsl-agent",
        description="Train the device side of a split network on this device's own data, as the "
        "coordinator asks over MQTT. Runs until stopped; the coordinator may come later.",
        epilog="`cpsl-agent profile` measures this device once and prints what it found; "
        "`cpsl-agent infer` predicts by the device half of a trained model.",
    )
    add = parser.add_argument
    add("--version", action=VersionAction, nargs=0, help="print the version")
    _add_config(parser)
    broker_help = "mqtt://[user:password@]host[:port], mqtts, ws or wss://…"
    add("--broker", required=True, metavar="URL", help=broker_help)
    add("--id", required=True, action="append", help="this device's id; again to host another")
    add("--site", default="default", help="part of every topic; that of the coordinator")
    _add_data_flags(parser)
    _add_engine_flags(parser)
    _add_limits(parser)
    add("--wait", action="store_true", help="if the broker is not there, wait for it")
    _add_tls_flags(parser)
    chunk_help = "tensors travel in chunks of this"
    add("--chunk-bytes", type=_chunk_bytes, default=DEFAULT_CHUNK_BYTES, help=chunk_help)
    scenario_help = (
        "emulate slower devices and links: uniform, mixed, one-straggler, fading or a file; "
        "the number of the shard picks the class"
    )
    add("--scenario", metavar="NAME", help=scenario_help)
    add("--end-with-stdin", action="store_true", help="end when standard input does")
    health_help = "write there every 5 s that it is alive, as JSON"
    add("--health-file", type=Path, metavar="FILE", help=health_help)
    spans_help = "record each step as OpenTelemetry spans: for http://HOST:4318 (OTLP), or a file"
    add("--spans", metavar="URL|FILE", help=spans_help)
    _add_log(parser, level="info", json_help="log lines of JSON, as --log-format json")
    return parser


def build_profile_parser() -> argparse.ArgumentParser:
    """Parse what a device is measured with."""
    parser: argparse.ArgumentParser = Parser(
        prog="cpsl-agent profile",
        description="Measure this device, and with a broker its link, and print what it found.",
    )
    add = parser.add_argument
    _add_config(parser)
    add("--model", default="lenet", help="built-in network to time (lenet)")
    add("--batch-size", type=_batch_size, default=16, help="samples in a mini-batch (16)")
    _add_engine_flags(parser)
    add("--broker", metavar="URL", help="measure the link to this broker")
    add("--id", default="this-device", help="this device's id")
    add("--site", default="default", help="part of every topic")
    add("--chunk-bytes", type=_chunk_bytes, default=DEFAULT_CHUNK_BYTES, help=argparse.SUPPRESS)
    _add_log(parser, level="warning", json_help="print the profile as it would be published")
    _add_tls_flags(parser)
    return parser


def build_inference_parser() -> argparse.ArgumentParser:
    """Parse what a device predicts by."""
    parser: argparse.ArgumentParser = Parser(
        prog="cpsl-agent infer",
        description="Predict this device's own samples: the device half here, by ONNX Runtime, and "
        "the server half where `cpsl infer RUNDIR --serve` runs. Only smashed data leave it.",
    )
    add = parser.add_argument
    _add_config(parser)
    half_help = "device half, as cpsl infer RUNDIR --export FOLDER writes it"
    add("half", type=Path, metavar="DEVICE.onnx", help=half_help)
    broker_help = "mqtt://[user:password@]host[:port], mqtts, ws or wss://…"
    add("--broker", required=True, metavar="URL", help=broker_help)
    add("--id", required=True, help="this device's id")
    add("--site", default="default", help="part of every topic; that of the server half")
    add("--data", required=True, metavar="SOURCE", help=f"{KNOWN_SOURCES}, or {KNOWN_INPUTS}")
    add("--part", choices=("train", "test"), help="of the data; test where there is one")
    add("--batch-size", type=_batch_size, default=64, metavar="B", help="samples at a time (64)")
    codec_help = "of the smashed data: fp32, fp16, bf16, int8, int4, … (fp32)"
    add("--codec", default="fp32", metavar="NAME", help=codec_help)
    timeout_help = "how long a batch may take, and the server half may be away (30)"
    add("--timeout", type=_seconds, default=30.0, metavar="SECONDS", help=timeout_help)
    add("--threads", type=_threads, default=1, help="threads of the arithmetic (1)")
    add("--output", type=Path, metavar="FILE", help="write predictions: .csv, .jsonl or .npy")
    add("--wait", action="store_true", help="if the broker is not there, wait for it")
    _add_tls_flags(parser)
    _add_log(parser, level="info", json_help="print a document instead of CSV")
    return parser


PARSERS: dict[Action, Callable[[], argparse.ArgumentParser]] = {
    "serve": build_parser,
    "profile": build_profile_parser,
    "infer": build_inference_parser,
}


def _add_log(parser: argparse.ArgumentParser, *, level: str, json_help: str) -> None:
    parser.add_argument("--json", action="store_true", help=json_help)
    quiet_help = "log warnings and errors only, as --log-level warning"
    parser.add_argument("--quiet", action="store_true", help=quiet_help)
    parser.add_argument("--log-level", default=level, choices=LOG_LEVELS)
    format_help = "lines for people, or JSON (text)"
    parser.add_argument("--log-format", default="text", choices=LOG_FORMATS, help=format_help)


def _add_config(parser: argparse.ArgumentParser) -> None:
    config_help = 'take flags from a file: broker = "mqtt://…" for --broker mqtt://…, and so on'
    parser.add_argument("--config", metavar="AGENT.toml", help=config_help)


def _add_data_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", required=True, metavar="SOURCE", help=KNOWN_SOURCES)
    shard_help = "take the I-th of N parts of the data (from 0); one for each --id"
    add("--shard", action="append", default=[], metavar="I/N", help=shard_help)
    add("--partition", default="iid", help="how parts are made: iid, classes:K, dirichlet:ALPHA")
    add("--seed", type=_seed, default=0, help="seed of the partition; that of the job")
    watch_help = "read the data again so often, for those that become more during a run"
    add("--watch-data", type=_seconds, metavar="SECONDS", help=watch_help)
    add("--publish-labels", action="store_true", help="tell how many samples of each class it has")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """What this device's owner lets a coordinator do."""
    limits = parser.add_argument_group("what a coordinator may have this device do")
    code_help = (
        "run networks and losses of this package, or this one function (PACKAGE.MODULE:NAME); "
        "without it, only built-in ones; again for more"
    )
    limits.add_argument(
        "--allow-code", action="append", default=[], metavar="PACKAGE", help=code_help
    )
    cut_help = (
        "cut no earlier than after this layer, by its name or its number from 1; 1 refuses what "
        "sends raw data, as the method cl"
    )
    limits.add_argument("--min-cut", type=_layer, metavar="LAYER", help=cut_help)
    memory_help = "take so much in a step of training, as 300MB; by default what is free then"
    limits.add_argument("--max-memory", type=_size, metavar="SIZE", help=memory_help)
    flop_help = "compute so much in a step of training (1e12 floating-point operations)"
    limits.add_argument(
        "--max-step-flop", type=_amount, default=DEFAULT_STEP_FLOP, metavar="FLOP", help=flop_help
    )


def _size(text: str) -> int:
    from pydantic import ByteSize, TypeAdapter, ValidationError  # noqa: PLC0415

    try:
        size = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        size = 0
    if size <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size, as 300MB or 2GiB")
    return size


def _layer(text: str) -> str:
    if not is_layer(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a layer's name or number, as pool1 or 3")
    return text


def _seconds(text: str) -> float:
    seconds = _amount(text)
    if seconds > MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {MOST_SECONDS:,.0f} seconds")
    return seconds


def _amount(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = 0.0
    if not 0 < amount < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, as 1e12")
    return amount


def _add_engine_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--engine", choices=list(ENGINES), help="what computes; torch where it is installed")
    add("--threads", type=_threads, default=1, help="threads of the arithmetic (1)")


def _add_tls_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cafile", type=Path, help="whom to trust, for mqtts")
    parser.add_argument("--certfile", type=Path, help="client certificate")
    parser.add_argument("--keyfile", type=Path, help="its key")


def _between(least: int, most: int) -> Callable[[str], int]:
    """Read a whole number, both ends allowed."""

    def read(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {least:,} to {most:,}"
            )
        return int(text)

    return read


_chunk_bytes = _between(LEAST_CHUNK_BYTES, MOST_CHUNK_BYTES)
_batch_size = _between(1, 65_536)
_threads = _between(1, 1024)
_seed = _between(0, 2**32 - 1)
