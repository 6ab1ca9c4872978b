"""The page of runs that were recorded: one to look at, several to compare."""

import asyncio
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_coordinator.monitor.json_lines import plain
from edge_coordinator.monitor.record import RunRecord
from edge_coordinator.monitor.web.app import records_app
from edge_coordinator.monitor.web.serving import Address, Say, say_where, served
from runtime.wire.published import PlanReport

_OF_THE_JOB = (
    ("model", "name"),
    ("data", "source"),
    ("data", "partition"),
    ("devices", "count"),
    ("devices", "scenario"),
    ("training", "method"),
    ("training", "batch_size"),
    ("training", "local_epochs"),
    ("plan", "mode"),
)
"""What tells runs apart, of all that a job file says."""


class RunRecords:
    """The runs of some directories; read anew whenever the page asks, for a run may go on."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """SettingsError if one of them holds no rounds."""
        self._records = [RunRecord(path) for path in paths]
        for record in self._records:
            record.last()

    def summaries(self) -> list[dict[str, Any]]:
        """Give each run's rounds in short, and its last one in full."""
        return [self._summary(record) for record in self._records]

    def round(self, run: int, number: int) -> dict[str, Any] | None:
        """Give plan and report of one round."""
        if run >= len(self._records):
            return None
        record = self._records[run]
        found = record.round(number)
        return (
            None if found is None else {"round": plain(found[0]), "plan": _plan(found[1], record)}
        )

    def _summary(self, record: RunRecord) -> dict[str, Any]:
        report, plan = record.last()
        return {
            "name": record.path.resolve().name,
            "job": _job(record),
            "history": plain(record.history(max_points=None).report(report.run)),
            "round": plain(report),
            "plan": _plan(plan, record),
            "clock": record.clock,
        }


def _plan(plan: PlanReport | None, record: RunRecord) -> dict[str, Any] | None:
    """Give a plan; one that was written down without its local epochs has those of the job."""
    tree = plain(plan)
    epochs = _job(record).get("training.local_epochs", "1")
    if tree is not None and plan is not None and "local_epochs" not in plan.model_fields_set:
        tree["local_epochs"] = int(epochs) if epochs.isdecimal() else 1
    return tree


def _job(record: RunRecord) -> dict[str, str]:
    """Read what tells runs apart; nothing, where the file cannot be read."""
    try:
        tree = tomllib.loads((record.path / "job.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    values = {f"{table}.{key}": tree.get(table, {}).get(key) for table, key in _OF_THE_JOB}
    return {key: str(value) for key, value in values.items() if value is not None}


async def serve_records(paths: Sequence[Path], *, address: Address, say: Say) -> None:
    """Serve the page of recorded runs until cancelled."""
    app = records_app(RunRecords(paths), bound_to=address.host)
    async with served(app, address.listen()) as url:
        say_where(url, address, say)
        await asyncio.get_running_loop().create_future()
