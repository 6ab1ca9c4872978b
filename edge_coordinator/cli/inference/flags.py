"""The flags of `cpsl infer`."""

import argparse
import re
from pathlib import Path

from edge_coordinator.cli.watching_flags import add_broker
from runtime.offered import KNOWN_INPUTS


def add_inference(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `infer`."""
    parser = commands.add_parser(
        "infer",
        help="predict by a trained model in two halves, cut where you like",
        description="Predict by the model of a run: the layers up to a cut as on a device, by ONNX "
        "Runtime, the others as on the server. Or write both halves as ONNX files, or serve the "
        "server half to devices that run `cpsl-agent infer`.",
    )
    add = parser.add_argument
    add("model", type=Path, metavar="RUNDIR", help="of a run, or a folder of exported halves")
    add("--data", metavar="SOURCE", help=f"as a job's data.source, or {KNOWN_INPUTS}")
    add("--part", choices=("train", "test"), help="of the data; test where there is one")
    add("--cut", metavar="LAYER", help="last layer of the device half; that of the last round")
    add("--weights", choices=("model", "last"), default="model", help="of which file (model)")
    add("--batch-size", type=_batch_size, default=64, metavar="B", help="samples at a time (64)")
    add(
        "--device",
        type=_device,
        default="cpu",
        metavar="NAME",
        help="what the server half of a run computes on: cpu, cuda, cuda:N, mps or auto (cpu)",
    )
    add("--output", type=Path, metavar="FILE", help="write predictions: .csv, .jsonl or .npy")
    add("--export", type=Path, metavar="FOLDER", help="write device.onnx and server.onnx there")
    add(
        "--allow-code",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="run code of this package, or this PACKAGE.MODULE:NAME, where the run's job names it",
    )
    serving = parser.add_argument_group("over a broker")
    serving.add_argument("--serve", action="store_true", help="serve the server half to devices")
    serving.add_argument(
        "--wait", action="store_true", help="if the broker is not there, wait for it"
    )
    add_broker(serving)


def _batch_size(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 65,536")
    return int(text)


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,2})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not cpu, cuda, cuda:N, mps or auto")
    return text
