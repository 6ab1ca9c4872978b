"""One device becomes ten times slower than its profile said: what the round and the plan do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.programs import CPSL, Program, rounds_of, run_directory

SLOWDOWN = 300.0
"""So that a step takes seconds, most of them on the device."""
SLOWER_FROM_S = 45.0
MARGIN_S = 3.0
SPREAD = 1.3
"""How much longer than those before it the round may be, beside the margin."""
SCENARIO = f"""
[[devices]]
name = "steady"
count = 3
slowdown = {SLOWDOWN}
up_bps = 50e6
down_bps = 50e6

[[devices]]
name = "tiring"
slowdown = {SLOWDOWN}
up_bps = 50e6
down_bps = 50e6
trace = [
  {{ from_s = 0.0, slowdown_factor = 1.0 }},
  {{ from_s = {SLOWER_FROM_S}, slowdown_factor = 10.0 }},
]
"""
TIRING = "dev-3"


async def compare(folder: Path) -> bool:
    """Train with a device that tires; whether its round was short and the next plan knew."""
    (folder / "tiring.toml").write_text(SCENARIO, encoding="utf-8")
    program = await Program.start(
        *CPSL, "local", "--plan", "auto", "--scenario", "tiring.toml", "--devices", "4",
        "--clusters", "2", "--rounds", "14", "--set", f"devices.margin_s={MARGIN_S}",
        "--set", "plan.cut=pool1", "--output", "slow", cwd=folder,
    )  # fmt: skip
    assert await program.end() == 0, program.lines[-5:]
    rounds = rounds_of(run_directory(folder / "slow"))
    for line in rounds:
        predicted = line["plan"]["predicted"].get(TIRING, {})
        answer_s = sum(predicted.get(f"{name}_s", 0.0) for name in ("forward", "backward"))
        print(
            f"round {line['round']}: {line['round_s']:.2f} s, {TIRING} predicted to compute "
            f"{answer_s:.2f} s an epoch; lost {line['lost'] or 'nobody'}",
            flush=True,
        )
    return judge(rounds)


def judge(rounds: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the round in which the device was late was short, and the next plan knew."""
    late = next((at for at, line in enumerate(rounds) if TIRING in line["lost"]), None)
    if late is None or late < 2 or late + 1 == len(rounds):
        when = "late in no round" if late is None else f"late in round {late + 1} of {len(rounds)}"
        print(f"{TIRING} was {when}: that shows nothing")
        return False
    round_s = rounds[late]["round_s"]
    before_s = median(line["round_s"] for line in rounds[1:late])  # The first one measures.
    limit_s = SPREAD * before_s + MARGIN_S
    # It is left out while it is busy; then it is planned for as the slower device that it is.
    plans = [line["plan"] for line in rounds[late + 1 :]]
    back = next((plan for plan in plans if TIRING not in plan["left_out"]), None)
    known = [plan["left_out"].get(TIRING) or plan["assumed"].get(TIRING, "") for plan in plans]
    print(
        f"late in round {rounds[late]['round']}: {round_s:.2f} s, {before_s:.2f} s before, at most "
        f"{limit_s:.2f} s allowed; the next plan: {known[0] or 'knows nothing'}"
    )
    if back is None:
        print(f"{TIRING} did not come back")
        return False
    print(f"round {back['round']}, when it is back: {back['assumed'].get(TIRING, 'knows nothing')}")
    return round_s <= limit_s and bool(known[0]) and TIRING in back["assumed"]
