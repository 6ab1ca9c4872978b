"""Hostile peers against real programs on a real Mosquitto: `python -m benchmarks.hostile`.

Three agents and a coordinator train on and on. Somebody who may publish forges what they say, on a
broker that lets everybody in and on one that `cpsl fleet` has set up (there as a device of the
fleet that is none of the three); a fourth device lies under its own id; and an agent that is alone
gets jobs that are none. What the run did about each is a row of the table in docs/security.md,
which `--write` makes anew. Ends with 1 if anything is `not defended`.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from benchmarks.hostile import commanded, forged, lies
from benchmarks.hostile.attack import Judgement, RunAttack, try_on
from benchmarks.hostile.commanded import COMMANDS, lone_agent
from benchmarks.hostile.site import MEMBER, Way, fleet_broker, open_broker, running_site
from benchmarks.hostile.table import Found, TableRow, written
from benchmarks.programs import run_to_end
from runtime.errors import EdgeError

ALL = (*forged.ATTACKS, forged.LAST, *lies.ATTACKS, *COMMANDS)
KINDS = ("open", "fleet")


def main() -> int:
    """Try the attacks that were asked for; 1 if one succeeds that did not."""
    arguments = _arguments()
    names = arguments.only or [each.name for each in ALL if each.is_quick or not arguments.quick]
    try:
        found = run_to_end(_try(names))
    except EdgeError as error:
        sys.exit(f"hostile: {error}")
    if arguments.write:
        written([TableRow(each.name, each.what, each.before) for each in ALL], found)
    lost = {
        f"{name} ({kind})"
        for (name, kind), outcome in found.items()
        if outcome.verdict == "not defended"
    }
    result = f"NOT DEFENDED: {', '.join(sorted(lost))}" if lost else "as was to be"
    print(f"{len(found)} tried: {result}")
    return 1 if lost else 0


async def _try(names: Sequence[str]) -> Found:
    found: Found = {}
    with tempfile.TemporaryDirectory(prefix="cpsl-hostile-") as name:
        for kind in KINDS:
            attacks = [each for each in forged.ATTACKS if each.name in names]
            attacks += [each for each in lies.ATTACKS if each.name in names and kind == "open"]
            attacks += [each for each in (forged.LAST,) if each.name in names]
            commands = [each for each in COMMANDS if each.name in names and kind == "open"]
            if not attacks and not commands:
                continue
            folder = Path(name) / kind
            folder.mkdir()
            async with _broker(kind, folder) as way:
                await _attack(kind, way, folder, attacks, found)
                if commands:
                    await _command(kind, way, folder, commands, found)
    return found


def _broker(kind: str, folder: Path) -> AbstractAsyncContextManager[Way]:
    return fleet_broker(folder) if kind == "fleet" else open_broker(folder)


async def _attack(
    kind: str, way: Way, folder: Path, attacks: Sequence[RunAttack], found: Found
) -> None:
    """Attack one run as long as it goes on, then another."""
    left = list(attacks)
    while left:
        place = folder / f"run-{len(left)}"
        place.mkdir()
        async with running_site(way, place) as site:
            outcome = Judgement("held")
            while left and outcome.verdict != "not defended":
                attack = left.pop(0)
                outcome = await try_on(attack, site, member=f"devices/{MEMBER}")
                _tell(found, attack.name, kind, outcome)


async def _command(
    kind: str, way: Way, folder: Path, commands: Sequence[commanded.Command], found: Found
) -> None:
    async with lone_agent(way, folder) as (program, bus):
        for command in commands:
            _tell(found, command.name, kind, await commanded.try_on(command, program, bus, folder))


def _tell(found: Found, name: str, kind: str, outcome: Judgement) -> None:
    found[name, kind] = outcome
    how = f": {outcome.how}" if outcome.how else ""
    print(f"{name}, {kind}: {outcome.verdict}{how}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    names = ", ".join(each.name for each in ALL)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[each.name for each in ALL],
                        help=f"of {names}")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a few of each kind, for every day")
    parser.add_argument("--write", action="store_true", help="write what was found to the table")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # So that no program is left.
    sys.exit(main())
