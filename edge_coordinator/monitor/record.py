"""The rounds of a run as its directory holds them, to be looked at."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from runtime.errors import SettingsError
from runtime.wire.history import MAX_POINTS, History
from runtime.wire.published import PlanReport, RoundReport

Read = TypeVar("Read")


class RunRecord:
    """A run's `rounds.jsonl`, read line by line: a long run's rounds need not fit in memory."""

    def __init__(self, path: Path) -> None:
        """SettingsError if there are no rounds to be read in this directory."""
        self.path = path
        self._file = path / "rounds.jsonl"
        if not path.is_dir():
            raise SettingsError(f"{path} is not a directory; give that of a run, as runs/2026…")
        if not self._file.is_file():
            raise SettingsError(f"{path} holds no rounds.jsonl: no round was finished there")

    @property
    def clock(self) -> str:
        """Whose seconds it tells: `wall`, or `virtual` of a simulation."""
        first = next(self._lines(), "{}")
        return str(self._checked(first, json.loads).get("clock", "wall"))

    def history(self, *, max_points: int | None) -> History:
        """Put all rounds together; SettingsError if one cannot be read."""
        history = History(max_points=max_points)
        for line in self._lines():
            report, plan = self._checked(line, _round_of)
            if plan is not None:
                history.plan(plan, 0)
            history.add(report)
        return history

    def reports(self) -> Iterator[RoundReport]:
        """Give the rounds one after another; SettingsError if one cannot be read."""
        for line in self._lines():
            yield self._checked(line, _round_of)[0]

    def last(self) -> tuple[RoundReport, PlanReport | None]:
        """Give the last round that is whole."""
        last = None
        for last in self._lines():  # noqa: B007
            pass
        if last is None:
            raise SettingsError(f"{self._file} holds no round yet")
        return self._checked(last, _round_of)

    def round(self, number: int) -> tuple[RoundReport, PlanReport | None] | None:
        """Give one round; None if it is not there."""
        for line in self._lines():
            if f'"round": {number},' in line:  # Sooner found than read.
                found = self._checked(line, _round_of)
                if found[0].round == number:
                    return found
        return None

    def _lines(self) -> Iterator[str]:
        """Give each whole line; one that was cut short is of a round that was not done."""
        with self._file.open(encoding="utf-8", errors="replace") as file:
            yield from (line for line in file if line.endswith("\n"))

    def _checked(self, line: str, read: Callable[[str], Read]) -> Read:
        try:
            return read(line)
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise SettingsError(
                f"{self._file} cannot be read as the rounds of a run: {reason}"
            ) from error


def history_so_far(path: Path) -> History:
    """Give what a run that goes on says of its rounds so far; nothing, if it has none."""
    if not (path / "rounds.jsonl").is_file():
        return History()
    return RunRecord(path).history(max_points=MAX_POINTS)


def _round_of(line: str) -> tuple[RoundReport, PlanReport | None]:
    tree = json.loads(line)
    plan = tree.pop("plan", None)
    tree.pop("clock", None)
    known = {name: value for name, value in tree.items() if name in RoundReport.model_fields}
    return RoundReport.model_validate(known), None if plan is None else _plan_of(plan)


def _plan_of(tree: dict[str, Any]) -> PlanReport:
    known = {name: value for name, value in tree.items() if name in PlanReport.model_fields}
    return PlanReport.model_validate(known)
