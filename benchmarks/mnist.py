"""Thirty local devices on MNIST: rounds, seconds, bytes and memory to a target accuracy.

    python -m benchmarks.mnist DIR [--devices 30] [--clusters 6] [--target 0.95]

Starts `cpsl local` as anyone would and reads what it leaves. Memory is the largest sum of the
proportional set sizes of all its processes, read from the operating system twice a second.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil


def main() -> None:
    """Run the job and print one line for each figure."""
    flags = _flags()
    with tempfile.TemporaryDirectory() as folder:
        command = (
            *(sys.executable, "-m", "edge_coordinator", "local"),
            *("--data", f"mnist:{flags.directory.resolve()}", "--partition", "classes:3"),
            *(
                "--plan",
                "by_hand",
                "--devices",
                str(flags.devices),
                "--clusters",
                str(flags.clusters),
            ),
            *("--batch-size", "16", "--local-epochs", "1", "--rounds", str(flags.rounds)),
            *("--target-accuracy", str(flags.target), "--output", folder),
        )
        start_s = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        peak_bytes = _watch(process)
        total_s = time.perf_counter() - start_s
        if process.returncode:
            sys.exit(process.returncode)
        (run,) = Path(folder).iterdir()
        lines = (run / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    _print([json.loads(line) for line in lines], total_s=total_s, peak_bytes=peak_bytes)


def _watch(process: "subprocess.Popen[str]") -> int:
    """Wait for the end of a program; the most memory that it and its children held."""
    peak_bytes = 0
    while process.poll() is None:
        peak_bytes = max(peak_bytes, _memory_bytes(psutil.Process(process.pid)))
        try:
            process.communicate(timeout=0.5)
        except subprocess.TimeoutExpired:
            continue
    return peak_bytes


def _memory_bytes(parent: psutil.Process) -> int:
    total = 0
    for one in (parent, *parent.children(recursive=True)):
        try:
            full = one.memory_full_info()
        except psutil.Error:
            continue  # It has just ended.
        total += getattr(full, "pss", full.rss)
    return total


def _print(rounds: list[dict[str, float]], *, total_s: float, peak_bytes: int) -> None:
    last = rounds[-1]
    seconds = sorted(each["round_s"] for each in rounds)
    print(f"rounds            {len(rounds)}")
    print(f"test accuracy     {last['test_accuracy']:.2%}")
    print(f"seconds training  {last['elapsed_s']:.1f}")
    print(f"seconds in all    {total_s:.1f}")
    print(f"seconds a round   {seconds[len(seconds) // 2]:.3f} (median, without evaluation)")
    print(f"bytes a round     {last['up_bytes']:.0f} up, {last['down_bytes']:.0f} down")
    print(f"peak memory       {peak_bytes / 1e6:.0f} MB, all processes")


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Thirty local devices on MNIST.")
    parser.add_argument("directory", type=Path, help="folder with MNIST's IDX files")
    parser.add_argument("--devices", type=int, default=30)
    parser.add_argument("--clusters", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=200, help="at most")
    parser.add_argument("--target", type=float, default=0.95)
    return parser.parse_args()


if __name__ == "__main__":
    main()
