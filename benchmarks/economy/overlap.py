"""A turn in micro-batches beside one in whole mini-batches: `python -m benchmarks.economy.overlap`.

The same job twice, in micro-batches and without, over real local agents, a real broker and emulated
links: seconds of a round, and how far apart the weights are after the last. And the paper scenario,
by the latency model: with identical devices, and with a spread of 50 % between rounds, each with
tensors as they are and as int8.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.planner import plan_round
from edge_coordinator.planning.wire import WireTable
from edge_coordinator.simulation.world import drawn_states
from profiles.variation import Spread
from runtime.scenarios.files import load_scenario
from runtime.wire.codecs.names import TurnCodecs

LINKS_MBPS = (3, 8, 20)
SLOWDOWN = 1.0
"""Of each device beside this machine's processor."""
DRAWS = 20
ROUNDS = 20
MICRO_BATCHES = 4


def main() -> None:
    """Run both and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--micro-batches", type=int, default=MICRO_BATCHES)
    flags = parser.parse_args()
    print(*paper_lines(flags.micro_batches), sep="\n", flush=True)
    try:
        print(*overlap_lines(flags.rounds, flags.micro_batches), sep="\n")
    except RuntimeError as error:
        sys.exit(str(error))


def paper_lines(micro_batches: int = MICRO_BATCHES) -> list[str]:
    """Give mean seconds of a round of the paper scenario, and how many times shorter it gets."""
    lines = [f"{'paper scenario, by the model':<30}{'s a round':>10}{'':>7}{'spread 50 %':>13}"]
    rows = [
        (name, [_paper_s(count, spread, codec) for spread in (0.0, 0.5)])
        for name, count, codec in (
            ("fp32", 1, None),
            (f"{micro_batches} micro-batches", micro_batches, None),
            ("int8", 1, "int8"),
            (f"{micro_batches} micro-batches, int8", micro_batches, "int8"),
        )
    ]
    for name, (equal_s, spread_s) in rows:
        base = rows[0][1]
        lines.append(
            f"{name:<30}{equal_s:>10.2f}{_times(base[0], equal_s)}"
            f"{spread_s:>13.2f}{_times(base[1], spread_s)}"
        )
    return lines


def overlap_lines(num_rounds: int = ROUNDS, micro_batches: int = MICRO_BATCHES) -> list[str]:
    """Run the job both ways; RuntimeError with what it said if a run fails."""
    with tempfile.TemporaryDirectory() as folder:
        whole, parted = (
            _run(Path(folder) / str(count), count, num_rounds) for count in (1, micro_batches)
        )
        whole_s, parted_s = _round_s(whole), _round_s(parted)
        links = ", ".join(map(str, LINKS_MBPS))
        return [
            f"real agents, links of {links} Mbit/s: {whole_s:.2f} s a round, {parted_s:.2f} s in "
            f"{micro_batches} micro-batches:",
            f"{whole_s / parted_s:.2f} times shorter; the largest difference of a weight after "
            f"{num_rounds} rounds is {_difference(whole, parted):.1e}",
        ]


def _times(base_s: float, seconds: float) -> str:
    return f"{f'/{base_s / seconds:.2f}':>7}"


def _paper_s(micro_batches: int, spread: float, codec: str | None) -> float:
    """Mean seconds of a round of the paper scenario."""
    paper = load_scenario("paper")
    scenario = paper.model_copy(update={"spread": Spread.between_rounds(spread)})
    work = Workload.of_scenario(paper, loss_on_device=False)
    if codec is not None:
        codecs = TurnCodecs(model=codec, smashed=codec, gradient=codec, weights=codec)
        wire = WireTable.of(work.cuts, codecs, batch_size=work.batch_size)
        work = replace(work, wires=(wire,))
    seconds = []
    for round_ in range(1, DRAWS + 1):
        plan = plan_round(
            drawn_states(scenario, paper.names(), work.cuts, seed=0, round_=round_, elapsed_s=0.0),
            replace(work, micro_batches=(micro_batches,)),
            grouping=Grouping("cpsl", num_clusters=paper.num_clusters),
            cut=paper.cut,
            generator=np.random.default_rng(round_),
        )
        seconds.append(plan.predicted_s or 0.0)
    return float(np.mean(seconds))


def _run(folder: Path, micro_batches: int, num_rounds: int) -> Path:
    """Run the job; the directory that it leaves."""
    folder.mkdir()
    scenario = folder / "links.toml"
    devices = (
        f'[[devices]]\nname = "at-{rate}"\nslowdown = {SLOWDOWN}\nup_bps = {rate}e6\n'
        f"down_bps = {rate}e6\ndelay_s = 0.002\n"
        for rate in LINKS_MBPS
    )
    scenario.write_text('note = "A few links."\n\n' + "\n".join(devices))
    command = (
        *(sys.executable, "-m", "edge_coordinator", "local", "--plan", "by_hand"),
        *("--devices", str(len(LINKS_MBPS)), "--clusters", "1", "--rounds", str(num_rounds)),
        *("--local-epochs", "1", "--micro-batches", str(micro_batches)),
        *("--scenario", str(scenario), "--output", str(folder / "runs")),
        *("--set", f"evaluation.every={num_rounds}"),
    )
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    if finished.returncode:
        raise RuntimeError((finished.stderr or finished.stdout).strip())
    return next((folder / "runs").iterdir())


def _round_s(run: Path) -> float:
    """Median seconds of a round; of the first, where all is loaded, nothing is told."""
    lines = (run / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    return float(np.median([json.loads(line)["round_s"] for line in lines[1:]]))


def _difference(one: Path, other: Path) -> float:
    left, right = (load_file(run / "last.safetensors") for run in (one, other))
    return max(float(np.abs(left[name] - right[name]).max()) for name in left)


if __name__ == "__main__":
    main()
