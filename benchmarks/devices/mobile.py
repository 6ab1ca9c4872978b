"""What a device takes for its share of MobileNetV3, without torch and with it.

    python -m benchmarks.devices.mobile [--cuts CUT …] [--size 96] [--rounds 6]

Torchvision's mobilenet_v3_small, cut at three places: for each a real broker, a coordinator and one
agent, as their users start them, with ONNX Runtime (where torch cannot be imported) and with torch,
one after the other on this machine. Printed are the agent's own words on its peak memory, the
seconds that it published of a step (forward, backward and update; the median round, without the
first), and both as ratios. Needs torchvision; nothing is fetched.
"""

import argparse
import importlib.util
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.programs import AGENT, CPSL, Program, rounds_of, run_directory, run_to_end
from edge_coordinator.local.broker import local_broker
from tests.root import ROOT

NETWORK, DEVICE = "torchvision.models:mobilenet_v3_small", "pi-1"
CUTS = ("features.1", "features.4", "features.9")
BATCH, LOCAL_EPOCHS, SAMPLES, TEST = 16, 8, 256, 16
NUM_CLASSES = 10
LINE = "{:14}{:>12}{:>9}{:>8}{:>14}{:>9}{:>8}"


@dataclass(frozen=True)
class AgentFigures:
    """What one agent took."""

    step_s: float
    peak_mb: float


def main() -> int:
    """Run each cut on both engines, and print a line for it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cuts", nargs="+", default=list(CUTS), metavar="CUT")
    parser.add_argument("--size", type=int, default=96, help="rows and columns of an image (96)")
    parser.add_argument("--rounds", type=int, default=6, help="the first does not count (6)")
    flags = parser.parse_args()
    if importlib.util.find_spec("torchvision") is None:
        parser.error("this needs torchvision, whose network it brings: pip install torchvision")
    os.environ["PYTHONPATH"] = str(ROOT)
    print(f"mobilenet_v3_small, {BATCH} images of {flags.size} x {flags.size} a step, one thread")
    print(LINE.format("cut after", "ONNX, ms", "torch", "ratio", "ONNX, MB", "torch", "ratio"))
    for cut in flags.cuts:
        ours, theirs = (
            run_to_end(_measure(cut, engine, size=flags.size, num_rounds=flags.rounds))
            for engine in ("onnxruntime", "torch")
        )
        steps = _beside(1e3 * ours.step_s, 1e3 * theirs.step_s, "{:.1f}")
        peaks = _beside(ours.peak_mb, theirs.peak_mb, "{:.0f}")
        _progress("")
        print(LINE.format(cut, *steps, *peaks), flush=True)
    return 0


def _beside(ours: float, theirs: float, how: str) -> tuple[str, str, str]:
    return how.format(ours), how.format(theirs), f"{ours / theirs:.2f}"


async def _measure(cut: str, engine: str, *, size: int, num_rounds: int) -> AgentFigures:
    _progress(f"{cut} with {engine} …")
    with tempfile.TemporaryDirectory(prefix="cpsl-mobile-") as name:
        folder = Path(name)
        _write_images(folder / "own.npz", size)
        async with local_broker("auto", None) as broker:
            if engine != "torch":
                os.environ["PYTHONPATH"] = f"{_without_torch(folder)}{os.pathsep}{ROOT}"
            agent = await Program.start(
                *AGENT, "--broker", broker.url, "--id", DEVICE, "--engine", engine,
                "--data", "npz:own.npz", "--threads", "1", "--allow-code", NETWORK, cwd=folder,
            )  # fmt: skip
            os.environ["PYTHONPATH"] = str(ROOT)
            coordinator = await Program.start(
                *CPSL, "coordinator", "--broker", broker.url, "--devices", "1",
                "--plan", "by_hand", "--cut", cut, "--rounds", str(num_rounds),
                "--batch-size", str(BATCH), "--local-epochs", str(LOCAL_EPOCHS),
                "--model", NETWORK, "--data", "npz:own.npz",
                "--set", f"model.options={{num_classes={NUM_CLASSES}}}", cwd=folder,
            )  # fmt: skip
            try:
                if await coordinator.end():
                    raise RuntimeError(" | ".join(coordinator.lines[-3:]))
            finally:
                await coordinator.kill()
                if agent.process.returncode is None:
                    agent.process.terminate()
                await agent.end()
        return _figures(agent, run_directory(folder / "runs"))


def _figures(agent: Program, run: Path) -> AgentFigures:
    found = re.findall(r"peak memory of this process (\d+) MB", "\n".join(agent.lines))
    assert found, agent.lines
    measured = [each["measured"][DEVICE] for each in rounds_of(run)[1:]]
    step_s = median(each["forward_s"] + each["backward_s"] for each in measured)
    return AgentFigures(step_s, float(found[-1]))


def _without_torch(folder: Path) -> Path:
    """A folder that hides torch from whoever has it on the Python path."""
    hiding = folder / "without"
    hiding.mkdir()
    (hiding / "torch.py").write_text(
        'raise ImportError("this device has no torch")', encoding="utf-8"
    )
    return hiding


def _write_images(path: Path, size: int) -> None:
    generator = np.random.default_rng(0)
    parts = [
        generator.integers(0, 256, (n, 3, size, size), dtype=np.uint8) for n in (SAMPLES, TEST)
    ]
    labels = [generator.integers(0, NUM_CLASSES, n) for n in (SAMPLES, TEST)]
    np.savez(path, x_train=parts[0], x_test=parts[1], y_train=labels[0], y_test=labels[1])


def _progress(doing: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{doing}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
