"""Runs of the job on real local agents, a real broker and emulated links; or simulated ones."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.economy.variants import Variant

RATES_MBPS = (3, 5, 8, 12, 16, 20)
"""One device each, up and down alike."""
DELAY_S = 0.002
"""Each way."""
SLOWDOWN = 1.0
"""Of each device beside this machine's processor."""


@dataclass(frozen=True)
class RunCurve:
    """A run round by round; arrays are [round]."""

    accuracy: NDArray[np.float64]
    elapsed_s: NDArray[np.float64]
    """Since training began, evaluations left out."""
    up_bytes: NDArray[np.float64]
    """In all so far."""
    down_bytes: NDArray[np.float64]
    prediction_error: NDArray[np.float64]
    """Relative, of each round's seconds; NaN where nothing was measured."""

    @classmethod
    def read(cls, path: Path) -> "RunCurve":
        """Read what a run has written down."""
        lines = path.read_text(encoding="utf-8").splitlines()
        rounds = [json.loads(line) for line in lines]

        def sums(key: str) -> NDArray[np.float64]:
            return np.array(list(accumulate(each[key] for each in rounds)), dtype=np.float64)

        return cls(
            accuracy=np.array([each["test_accuracy"] for each in rounds]),
            elapsed_s=sums("round_s"),
            up_bytes=sums("up_bytes"),
            down_bytes=sums("down_bytes"),
            prediction_error=np.array(
                [np.nan if each["relative_error"] is None else each["relative_error"]
                 for each in rounds]
            ),
        )  # fmt: skip

    def until(self, target: float) -> int | None:
        """Index of the first round that reaches an accuracy; None if none does."""
        reached = np.flatnonzero(self.accuracy >= target)
        return int(reached[0]) if len(reached) else None


@dataclass(frozen=True)
class EconomyJob:
    """What all runs have in common."""

    mnist: Path
    output: Path
    num_rounds: int
    is_simulated: bool
    """Whether seconds are those of the latency model; the training is real all the same."""
    rates_mbps: Sequence[float] = RATES_MBPS
    delay_s: float = DELAY_S

    def write_scenario(self) -> Path:
        """Write down the emulated devices; where."""
        path = self.output / "links.toml"
        devices = [
            f'[[devices]]\nname = "at-{rate}"\nslowdown = {SLOWDOWN}\nup_bps = {rate}e6\n'
            f"down_bps = {rate}e6\ndelay_s = {self.delay_s}\n"
            for rate in self.rates_mbps
        ]
        links = f"Links of {min(self.rates_mbps)} to {max(self.rates_mbps)} Mbit/s."
        path.write_text(f'note = "{links}"\n\n' + "\n".join(devices))
        return path


def run(setting: EconomyJob, variant: Variant, seed: int) -> RunCurve:
    """Run a variant, unless this folder holds that already; RuntimeError if it fails."""
    how = "simulated-" if setting.is_simulated else ""
    folder = setting.output / f"{how}{variant.name.replace(':', '-')}-{seed}"
    done = [path for path in folder.glob("*/rounds.jsonl") if _is_whole(path, setting.num_rounds)]
    if not done:
        finished = subprocess.run(
            _command(setting, variant, seed, folder), check=False, capture_output=True, text=True
        )
        if finished.returncode:
            last = (finished.stderr or finished.stdout).strip().splitlines()[-1:]
            raise RuntimeError(f"{variant.name}, seed {seed}: {' '.join(last)}")
        done = list(folder.glob("*/rounds.jsonl"))
    return RunCurve.read(max(done))


def _is_whole(path: Path, num_rounds: int) -> bool:
    return len(path.read_text(encoding="utf-8").splitlines()) == num_rounds


def _command(setting: EconomyJob, variant: Variant, seed: int, folder: Path) -> Sequence[str]:
    return (
        *(sys.executable, "-m", "edge_coordinator"),
        "simulate" if setting.is_simulated else "local",
        *("--data", f"mnist:{setting.mnist.resolve()}", "--partition", "classes:3"),
        *("--devices", str(len(setting.rates_mbps)), "--rounds", str(setting.num_rounds)),
        *("--scenario", str(setting.write_scenario()), "--seed", str(seed)),
        *("--set", "evaluation.max_samples=2000", "--output", str(folder)),
        *variant.flags,
    )
