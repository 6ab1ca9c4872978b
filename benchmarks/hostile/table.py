"""The table of attacks in docs/security.md: what each did before, and does now."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hostile.attack import Judgement

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "security.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"

Found = dict[tuple[str, str], Judgement]
"""By the attack's name and the broker's kind."""


@dataclass(frozen=True)
class TableRow:
    """An attack, and what it did in an earlier version."""

    name: str
    what: str
    before: str


def written(rows: Sequence[TableRow], found: Found) -> None:
    """Write what was found into the page; what was not tried stays as it is there."""
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    old, tail = rest.split(END)
    old_lines = {line.split("|")[1].strip(): line for line in old.splitlines() if "`" in line}
    lines = [
        "",
        "| attack | before | open broker | access list |",
        "|---|---|---|---|",
    ]
    for row in rows:
        name = f"`{row.name}` {row.what}"
        tried = [found.get((row.name, kind)) for kind in ("open", "fleet")]
        cells = [str(outcome) for outcome in tried if outcome is not None]
        line = f"| {name} | {row.before or '·'} | {' | '.join(cells)} |"
        if len(cells) == 1:
            line = f"| {name} | {row.before or '·'} | {cells[0]} | as without |"
        lines.append(
            line if cells else old_lines.get(name, f"| {name} | · | not tried | not tried |")
        )
    PAGE.write_text(f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{tail}", encoding="utf-8")
