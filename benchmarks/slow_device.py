"""One device becomes ten times slower than its profile said: what the round and the plan do."""

from pathlib import Path

from benchmarks.programs import CPSL, Program, rounds_of, run_directory

SLOWDOWN = 300.0
"""So that a step takes seconds, most of them on the device."""
SLOWER_FROM_S = 45.0
MARGIN_S = 3.0
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
    late = next((at for at, line in enumerate(rounds) if TIRING in line["lost"]), None)
    for line in rounds:
        predicted = line["plan"]["predicted"].get(TIRING, {})
        answer_s = sum(predicted.get(f"{name}_s", 0.0) for name in ("forward", "backward"))
        print(
            f"round {line['round']}: {line['round_s']:.2f} s, {TIRING} predicted to compute "
            f"{answer_s:.2f} s an epoch; lost {line['lost'] or 'nobody'}",
            flush=True,
        )
    if late is None:
        print(f"{TIRING} was never late")
        return False
    before_s = sorted(line["round_s"] for line in rounds[1:late])[(late - 1) // 2]
    plan = rounds[late + 1]["plan"]
    members = [device for cluster in plan["clusters"] for device in cluster["devices"]]
    print(
        f"late in round {rounds[late]['round']}: {rounds[late]['round_s']:.2f} s, "
        f"{before_s:.2f} s before; the next plan: {plan['assumed'].get(TIRING, 'knows nothing')}"
    )
    return TIRING in members and TIRING in plan["assumed"]
