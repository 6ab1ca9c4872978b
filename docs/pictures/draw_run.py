"""Draw what a run showed on its terminal in the midst of it, from what it wrote down.

    make demo
    .venv/bin/python -m docs.pictures.draw_run runs/RUNDIR

Writes docs/pictures/run.svg, the picture at the top of the README.
"""

import argparse
import io
import json
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from edge_coordinator.cli.run_view import RunView
from edge_coordinator.run.events import ClusterStarted, RoundDone, RoundPlanned
from runtime.wire.published import PlanReport, RoundReport

PICTURE = Path(__file__).parent / "run.svg"
FORM = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="monospace">
<style>
.{unique_id}-matrix {{ font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""That of rich without its fonts, which it would load from elsewhere."""


def main() -> None:
    """Write the picture of one run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="a run's directory")
    parser.add_argument("--round", type=int, default=50, help="the last that is done (50)")
    arguments = parser.parse_args()
    rounds = arguments.run / "rounds.jsonl"
    if not rounds.exists():
        parser.error(f"{rounds} does not exist; give a run's directory")
    lines = rounds.read_text(encoding="utf-8").splitlines()
    if not 0 < arguments.round < len(lines):
        parser.error(f"--round {arguments.round} of {len(lines)} has no round after it to draw")
    svg = picture(lines, num_done=arguments.round)
    PICTURE.write_text(svg, encoding="utf-8")


def picture(lines: list[str], *, num_done: int) -> str:
    """Show the screen as it was when so many rounds were done and the next one trained."""
    now_s = 0.0
    console = Console(file=io.StringIO(), force_terminal=True, record=True, width=80)
    view = RunView(console, clock=lambda: now_s)
    for plan, report in _rounds(lines[:num_done]):
        view.tell(RoundPlanned(plan, num_rounds=len(lines)))
        now_s = report.elapsed_s
        view.tell(RoundDone(report))
    ((plan, _),) = _rounds(lines[num_done : num_done + 1])
    view.tell(RoundPlanned(plan, num_rounds=len(lines)))
    cluster = plan.clusters[0].devices
    view.tell(ClusterStarted(num_done + 1, 0, len(plan.clusters), tuple(cluster)))
    console.print(view)
    return console.export_svg(title="make demo", theme=MONOKAI, code_format=FORM, unique_id="run")


def _rounds(lines: list[str]) -> Iterator[tuple[PlanReport, RoundReport]]:
    """Give each round's plan, and what came of it."""
    for line in lines:
        tree = json.loads(line)
        plan = PlanReport.model_validate(tree.pop("plan"))
        tree.pop("clock")
        yield plan, RoundReport.model_validate(tree)


if __name__ == "__main__":
    main()
