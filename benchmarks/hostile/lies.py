"""What a device of the run does to it, under its own id."""

import asyncio
import sys
from functools import partial
from pathlib import Path

from benchmarks.hostile.attack import Forger, RunAttack
from benchmarks.hostile.site import Site, reading
from benchmarks.programs import Program

ROOT = Path(__file__).resolve().parent.parent.parent
THERE_S = 30.0
"""How long a liar may take to be planned with, or left out."""
WATCHED_S, KNOWN_S = 25.0, 4.0


async def _lie(forger: Forger, lie: str, *flags: str) -> str:
    """Have a device lie for some seconds; what became of it."""
    site, name = forger.site, "liar-" + "".join(each if each.isalnum() else "-" for each in lie)
    program = await Program.start(
        *(sys.executable, "-m", "benchmarks.hostile.lying_device", lie),
        *("--broker", site.way.url, "--site", site.topics.site, "--id", name),
        *("--engine", "onnxruntime", "--data", "digits", "--shard", "0/3"),
        *("--log-level", "warning", *flags),
        cwd=ROOT,
    )
    try:
        async with reading(program):
            return await _watch(site, name)
    finally:
        await program.kill()


async def _watch(site: Site, name: str) -> str:
    loop = asyncio.get_running_loop()
    end_s, is_there, why, start = loop.time() + THERE_S, False, "", len(site.rounds)
    while loop.time() < end_s - (WATCHED_S - KNOWN_S if why and is_there else 0.0):
        await asyncio.sleep(0.2)
        plan = site.plan
        lost = next((each.lost for each in site.rounds[start:] if name in each.lost), {})
        planned = {device for each in plan.clusters for device in each.devices} if plan else set()
        left_out = plan.left_out.get(name, "") if plan else ""
        if not is_there and (name in planned or left_out):
            is_there, end_s = True, loop.time() + WATCHED_S
        why = left_out or lost.get(name, "") or why
    if why:
        return why if why.startswith("its ") else f"it {why}"
    return "it was planned with" if is_there else "it was not let in"


def _attack(name: str, what: str, first: str, lie: str = "", *flags: str) -> RunAttack:
    return RunAttack(name, what, first, partial(_tell, lie=lie or name, flags=flags))


async def _tell(forger: Forger, *, lie: str, flags: tuple[str, ...]) -> str:
    return await _lie(forger, lie, *flags)


ATTACKS = (
    _attack("smashed-1e30", "one value of 1e30 in its smashed data", "the model was lost",
            "one value of 1e30"),
    _attack("smashed-nan", "NaN in its smashed data", "", "nan"),
    _attack("weights-1e6", "weights times 10^6", "the model was lost", "weights x 1e6"),
    _attack("weights-3e38", "weights of 3e38", "the model was lost", "weights 3e38"),
    _attack("samples", "2^62 samples, as it says", "its model alone counted"),
    _attack("trickle", "frames in pieces of 1 kB that trickle in", "the run waited for ever",
            "trickle", "--chunk-bytes", "1024"),
    _attack("slow-then-silent", "a profile that claims slowness, then silence",
            "the run waited for an hour"),
    _attack("label-width", "labels of another width", ""),
    _attack("garbage", "replies that are garbage", ""),
    _attack("broken-frames", "frames that are cut short", ""),
)  # fmt: skip
