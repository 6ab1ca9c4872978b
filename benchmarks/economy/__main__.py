"""Seconds, bytes and accuracy of each way to spend fewer of them, beside none of them.

    python -m benchmarks.economy DIR [--simulated] [--seeds 3] [--rounds 60] [--variants LIST]

DIR is a folder with MNIST's IDX files. Printed are, in this order: what encoding costs a device;
rounds of the paper scenario in micro-batches and as int8, by the latency model; rounds of real
agents in micro-batches beside whole mini-batches, and how far apart their weights end; and each
variant beside float32 in whole mini-batches. For these six local agents hold three classes each,
and LeNet is trained through a local broker on links of 3 to 20 Mbit/s, every variant with every
seed, one run after another. Runs that the output folder holds already are read, not repeated. With
`--simulated` the same jobs are simulated and no agents run: the training is real, the seconds are
those of the latency model on the same links, and so do not hang on what else this machine does.
What is left in the folder: the tables, and a picture of accuracy against MB and against seconds; a
second one for aggregated gradients, whose MB go down.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.economy.encoding import encoding_lines
from benchmarks.economy.figures import VariantFigures, lines, phi_lines
from benchmarks.economy.overlap import overlap_lines, paper_lines
from benchmarks.economy.picture import draw
from benchmarks.economy.runs import EconomyJob, RunCurve, run
from benchmarks.economy.variants import BASELINE, PHI, VARIANTS, Variant, variants_named

_PHI = tuple(variant.name for variant in PHI)


def main() -> None:
    """Run what is asked for and print the tables."""
    flags = _flags()
    flags.output.mkdir(parents=True, exist_ok=True)
    print(*encoding_lines(), "", *paper_lines(), "", sep="\n", flush=True)
    setting = EconomyJob(flags.mnist, flags.output, flags.rounds, is_simulated=flags.simulated)
    how = "simulated" if flags.simulated else "measured"
    try:
        if not flags.simulated:
            print("overlap of real agents …", flush=True)
            print(*overlap_lines(), "", sep="\n", flush=True)
        curves = _curves(setting, flags.variants, num_seeds=flags.seeds)
    except RuntimeError as error:
        sys.exit(str(error))
    figures = {name: VariantFigures.of(each, target=flags.target) for name, each in curves.items()}
    table = lines(figures, baseline=BASELINE.name, target=flags.target)
    (flags.output / f"{how}.txt").write_text("\n".join(table) + "\n", encoding="utf-8")
    path = flags.output / f"{how}.png"
    draw(curves, path, target=flags.target)
    print(*table, f"drawn in {path}", sep="\n")
    of_phi = {name: curves[name] for name in (BASELINE.name, *_PHI) if name in curves}
    if len(of_phi) > 1:
        path = flags.output / f"{how}-phi.png"
        draw(of_phi, path, target=flags.target, is_down=True)
        print("", *phi_lines(of_phi, baseline=BASELINE.name), f"drawn in {path}", sep="\n")


def _curves(
    setting: EconomyJob, variants: list[Variant], *, num_seeds: int
) -> dict[str, list[RunCurve]]:
    """Run every variant with one seed before the next seed, so that all meet the same company."""
    curves: dict[str, list[RunCurve]] = {variant.name: [] for variant in variants}
    for seed in range(num_seeds):
        for variant in variants:
            print(f"seed {seed}: {variant.name} …", flush=True)
            curve = run(setting, variant, seed)
            curves[variant.name].append(curve)
            print(
                f"  {curve.elapsed_s[-1]:.1f} s, {curve.up_bytes[-1] / 1e6:.2f} MB up, "
                f"{curve.accuracy[-1]:.2%}",
                flush=True,
            )
    return curves


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.economy",
        description="Fewer seconds and bytes on thin links, by real runs on MNIST.",
    )
    add = parser.add_argument
    add("mnist", type=_mnist, metavar="MNIST", help="folder with MNIST's IDX files")
    add("--seeds", type=_count, metavar="N", default=3, help="run each variant with so many (3)")
    add("--rounds", type=_count, metavar="T", default=60, help="of each run (60)")
    add("--simulated", action="store_true", help="let the latency model tell the seconds")
    add("--target", type=_fraction, metavar="F", default=0.95, help="accuracy to reach (0.95)")
    where = "folder for runs, tables and pictures; a run that it holds is not run again"
    add(
        "--output",
        type=Path,
        metavar="DIR",
        default=Path("runs/economy"),
        help=f"{where} (%(default)s)",
    )
    names = ",".join(variant.name for variant in VARIANTS)
    add("--variants", type=_variants, default=list(VARIANTS), metavar="LIST", help=f"of {names}")
    return parser.parse_args()


def _mnist(text: str) -> Path:
    path = Path(text)
    if not any(path.glob("train-images*")):
        raise argparse.ArgumentTypeError(f"no train-images… of MNIST in {text}")
    return path


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _fraction(text: str) -> float:
    try:
        fraction = float(text)
    except ValueError:
        fraction = 0.0
    if not 0 < fraction <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0 and at most 1")
    return fraction


def _variants(text: str) -> list[Variant]:
    try:
        return variants_named(text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    main()
