"""Simulated jobs under faults: `python -m benchmarks.simulated_faults --seeds N`.

Both halves of the protocol as they are, for several devices; the broker, the lines, the clock and a
network of four weights are simulated, so that a seed is a run and a run is some milliseconds. A
quarter of the seeds sends whole mini-batches, two quarters two or three micro-batches, and one has
aggregated gradients.
Faults strike for a while: messages are lost, come twice or overtake each other, devices die and
come back, connections break on either side. A turn that loses somebody is undone and tried again,
so every run has to end in the bits of the undisturbed one. Ends with 1 and the seeds that failed.
"""

import argparse
import sys
import time

from benchmarks.simulated_faults.seeds import why_wrong


def main() -> int:
    """Run the seeds that were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulated_faults",
        description="Jobs of a tiny network under faults: each ends in the bits of a quiet one.",
    )
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many (1000)")
    parser.add_argument(
        "--first", type=int, default=0, metavar="SEED", help="the first of them (0)"
    )
    arguments = parser.parse_args()
    started_s, num_wrong = time.process_time(), 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        if wrong := why_wrong(seed):
            num_wrong += 1
            print(f"seed {seed}: {wrong}", flush=True)
    took_s = time.process_time() - started_s
    num_right = arguments.seeds - num_wrong
    print(f"{num_right} of {arguments.seeds} seeds ended as undisturbed ({took_s:.0f} s of CPU)")
    return 1 if num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
