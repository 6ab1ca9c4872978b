"""Rounds of int8 in micro-batches beside whole ones: `python -m benchmarks.economy.parts DIR`.

DIR is a folder with MNIST's IDX files. Three real agents on links of 1 to 2 Mbit/s, 10 ms away: so
thin that rounds wait for them and not for this machine. Every variant runs once before any runs
again, so all meet the same company. Printed are the median seconds of a round, how many times
shorter that is than in whole mini-batches, and the median by which predictions were off.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from benchmarks.economy.runs import EconomyJob, RunCurve, run
from benchmarks.economy.variants import CODECS, EVERYTHING, Variant

RATES_MBPS = (1, 1.5, 2)
DELAY_S = 0.01
COUNTS = (2, 4, 8)
ROUNDS = 16
UNTOLD = 4
"""The first rounds: all is loaded then, and predictions learn from them."""
WHOLE, INT4 = (each for name in ("int8", "int4") for each in CODECS if each.name == name)


def main() -> None:
    """Run all and print what they took."""
    flags = _flags()
    flags.output.mkdir(parents=True, exist_ok=True)
    variants = [WHOLE, *map(_parted, COUNTS), INT4, EVERYTHING]
    setting = EconomyJob(
        flags.mnist,
        flags.output,
        flags.rounds,
        is_simulated=False,
        rates_mbps=RATES_MBPS,
        delay_s=DELAY_S,
    )
    curves: dict[str, list[RunCurve]] = {each.name: [] for each in variants}
    try:
        for seed in range(flags.seeds):
            for each in variants:
                curves[each.name].append(run(setting, each, seed))
    except RuntimeError as error:
        sys.exit(str(error))
    print(f"{'':<16}{'s a round':>10}{'':>8}{'predictions off by':>20}")
    base_s = _round_s(curves[WHOLE.name])
    for name, own in curves.items():
        off = np.concatenate([curve.prediction_error[UNTOLD:] for curve in own])
        round_s = _round_s(own)
        times = f"/{base_s / round_s:.2f}"
        print(f"{name:<16}{round_s:>10.3f}{times:>8}{float(np.nanmedian(np.abs(off))):>20.0%}")


def _parted(count: int) -> Variant:
    """Forced to travel in so many."""
    return Variant(f"int8 in {count}", (*WHOLE.flags, "--micro-batches", str(count)))


def _round_s(curves: list[RunCurve]) -> float:
    """Median seconds of a round of all seeds."""
    return float(np.median([np.diff(curve.elapsed_s)[UNTOLD - 1 :] for curve in curves]))


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Micro-batches of int8 on real, thin links.")
    parser.add_argument("mnist", type=Path, help="folder with MNIST's IDX files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--output", type=Path, default=Path("runs/parts"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
