"""Real jobs with faults from a seeded schedule: `python -m benchmarks.chaos [PART...]`.

Parts: `kills` (kill -9 of `cpsl local`, then --resume), `mixed` (the same with both engines and
AdamW whose device side begins anew each turn), `coordinator` (the same of `cpsl coordinator`, whose
agents live on), `phases` (the broker dies in each phase of a round, and is stopped in order in
one), `devices` (kill -9, SIGSTOP and a cut connection of three of five devices), `slow` (one device
ten times slower than its profile said), `small` (a broker with small queues and packets).
Without any: all of them. `--quick` takes three kills and two phases alone, for every day.
Ends with 1 if anything came out otherwise than undisturbed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.chaos import (
    broker_deaths,
    coordinator_kills,
    device_faults,
    slow_device,
    small_broker,
)
from benchmarks.programs import run_to_end

PARTS = ("kills", "mixed", "coordinator", "phases", "devices", "slow", "small")


def main() -> int:
    """Run the parts that were asked for, one after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="fewer of each")
    parser.add_argument("--kills", type=int, help="how often the run is killed (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part is named {', '.join(sorted(unknown))}")
    parts = arguments.parts or (("kills", "phases") if arguments.quick else PARTS)
    passed = {part: _run(part, arguments) for part in parts}
    for part, is_right in passed.items():
        print(f"{part}: {'as undisturbed' if is_right else 'FAILED'}")
    return 0 if all(passed.values()) else 1


def _run(part: str, arguments: argparse.Namespace) -> bool:
    print(f"\n{part}", flush=True)
    with tempfile.TemporaryDirectory(prefix="cpsl-chaos-") as name:
        return run_to_end(_compared(part, Path(name), arguments))


async def _compared(part: str, folder: Path, arguments: argparse.Namespace) -> bool:
    num_kills = arguments.kills or (3 if arguments.quick else 20)
    seed = arguments.seed
    match part:
        case "kills" | "mixed":
            return await coordinator_kills.compare(
                folder,
                coordinator_kills.LOCAL,
                num_kills=num_kills,
                seed=seed,
                more_flags=coordinator_kills.MIXED if part == "mixed" else (),
            )
        case "coordinator":
            return await coordinator_kills.compare_coordinator(
                folder, num_kills=num_kills, seed=seed
            )
        case "phases":
            deaths = broker_deaths.FEW if arguments.quick else broker_deaths.ALL
            return all((await broker_deaths.compare(folder, deaths)).values())
        case "devices":
            return await device_faults.compare(folder)
        case "slow":
            return await slow_device.compare(folder)
        case _:
            return await small_broker.compare(folder)


if __name__ == "__main__":
    sys.exit(main())
