"""Bring networks as their libraries give them, and say what becomes of each.

    python -m benchmarks.networks [NAME …] [--cuts 3] [--no-onnx]

Each is loaded, cut at several places, and trained for a step in two: on PyTorch, where outputs,
gradients and buffers have to be those of the whole to the bit (the user's own module; the recorded
graph where the module draws random numbers in its own way), and on ONNX Runtime, where the updated
weights have to be PyTorch's within rounding. Weights are drawn, nothing is fetched; a network whose
library is not installed is skipped. Each of several runs in a process of its own, which may take
`--limit-s` seconds and 12 GB.
"""

import argparse
import json
import logging
import resource
import subprocess
import sys
import warnings
from dataclasses import asdict

import torch

from benchmarks.networks.brought import Brought
from benchmarks.networks.language import LANGUAGE
from benchmarks.networks.others import OTHERS
from benchmarks.networks.own import OWN
from benchmarks.networks.research import RESEARCH
from benchmarks.networks.text import TEXT
from benchmarks.networks.trial import TriedNetwork, try_network
from benchmarks.networks.vision import VISION

BROUGHT = (*OWN, *OTHERS, *RESEARCH, *TEXT, *LANGUAGE, *VISION)
MOST_BYTES = 12_000_000_000


def main() -> None:
    """Print a line for each network, and what could not be done."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.networks", description="networks as their libraries give them"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which networks (all)")
    parser.add_argument("--cuts", type=int, default=3, help="how many of each to train at (3)")
    parser.add_argument("--no-onnx", action="store_true", help="on PyTorch alone")
    parser.add_argument("--limit-s", type=float, default=600, help="for each network (600)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    unknown = set(flags.names) - {brought.name for brought in BROUGHT}
    if unknown:
        known = ", ".join(brought.name for brought in BROUGHT)
        parser.error(f"no network named {min(unknown)!r}; there are {known}")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # Libraries remark on configurations that are small.
    torch.set_num_threads(1)
    chosen = [each for each in BROUGHT if not flags.names or each.name in flags.names]
    if flags.child:
        result = try_network(chosen[0], num_cuts=flags.cuts, with_onnx=not flags.no_onnx)
        print(json.dumps(asdict(result)))
        return
    print(f"{'network':34}{'load s':>7}{'cuts':>6}{'torch':>7}{'as its':>8}{'onnx':>6}{'s':>7}")
    results = []
    for number, brought in enumerate(chosen, start=1):
        if sys.stderr.isatty():
            print(f"{number}/{len(chosen)} {brought.name} …", end="\r", file=sys.stderr)
        results.append(try_in_process(brought, flags))
        print_row(results[-1])
    print_summary(results, num_cuts=flags.cuts)


def try_in_process(brought: Brought, flags: argparse.Namespace) -> TriedNetwork:
    """Try one network where neither its memory nor its end is that of the others."""
    command = [sys.executable, "-m", "benchmarks.networks", brought.name, "--child"]
    command += ["--cuts", str(flags.cuts), *(["--no-onnx"] if flags.no_onnx else [])]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            timeout=flags.limit_s,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES)),
        )
    except subprocess.TimeoutExpired:
        reason = f"not done within {flags.limit_s} s"
    except subprocess.CalledProcessError as error:
        reason = f"failed: {(error.stderr.strip().splitlines() or ['without a word'])[-1]}"
    else:
        return TriedNetwork(**json.loads(done.stdout.splitlines()[-1]))
    return TriedNetwork(brought.name, brought.library, refusal=reason)


def print_row(result: TriedNetwork) -> None:
    """One network: seconds to load, cuts that it has, and how many trained on each engine."""
    if result.skipped or result.refusal:
        print(f"{result.name:34}{result.skipped or result.refusal}", flush=True)
        return
    on_torch = f"{sum(result.is_equal)}/{len(result.tried)}"
    on_onnx = f"{sum(not trouble for trouble in result.onnx)}/{len(result.onnx)}"
    figures = f"{result.load_s:7.1f}{len(result.cuts):6}{on_torch:>7}{result.compared_with:>8}"
    print(f"{result.name:34}{figures}{on_onnx:>6}{result.export_s:7.1f}", flush=True)
    for name, is_equal in zip(result.tried, result.is_equal, strict=True):
        if not is_equal:
            print(f"    {name}: not the step of the whole")
    for name, trouble in zip(result.tried, result.onnx, strict=False):
        if trouble:
            print(f"    {name}: {trouble}")


def print_summary(results: list[TriedNetwork], *, num_cuts: int) -> None:
    """How many networks went through."""
    tried = [result for result in results if not result.skipped]
    trained = sum(bool(result.tried) and all(result.is_equal) for result in tried)
    exported = sum(any(not trouble for trouble in result.onnx) for result in tried)
    print(
        f"\nof {len(tried)} networks {trained} train at {num_cuts} cuts (or all they have) as the "
        f"whole does, {exported} on ONNX Runtime at one or more"
    )


if __name__ == "__main__":
    main()
