"""Runs from Python: those of the commands, where a loop runs, and with what came of them."""

import asyncio
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from edge_coordinator import Job, Run, run_local, run_local_async, simulate, simulate_async
from edge_coordinator.api.job import JobTables
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.run.events import Progress, RoundDone
from runtime.errors import SettingsError
from runtime.plugins import import_factory


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _job(**training: object) -> Job:
    return Job(
        training={"rounds": 2, "local_epochs": 1, **training},
        devices={"count": 2},
        plan={"mode": "by_hand"},
    )


def _only_run() -> Path:
    (path,) = Path("runs").iterdir()
    return path


def _same(left: Run, right: Run) -> bool:
    ours, theirs = left.weights("last"), right.weights("last")
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


async def test_a_run_on_this_machine_is_awaited_while_the_loop_goes_on() -> None:
    told: list[Progress] = []
    training = asyncio.create_task(run_local_async(_job(), on_progress=told.append))
    num_ticks = 0
    while not training.done():
        await asyncio.sleep(0.05)
        num_ticks += 1
    run = await training
    assert num_ticks > 10
    assert [each.report.round for each in told if isinstance(each, RoundDone)] == [1, 2]
    simulated = simulate(_job())  # Waited for in a thread whose loop runs.
    assert _same(run, simulated)
    assert [row["round"] for row in run.records] == [1, 2]
    assert run.ended == "all 2 rounds are done"
    assert run.plan(2).cut_layer == "pool1"
    assert len(run.history) == 2


async def test_a_cancelled_run_goes_on_to_the_same_weights() -> None:
    job, begun = _job(rounds=8), asyncio.Event()
    loop = asyncio.get_running_loop()

    def say(progress: Progress) -> None:
        if isinstance(progress, RoundDone):
            loop.call_soon_threadsafe(begun.set)

    training = asyncio.create_task(simulate_async(job, on_progress=say))
    await begun.wait()
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    path = _only_run()
    assert Run(path).ended == "interrupted"
    assert len(Run(path).rounds) < 8
    resumed = await simulate_async(Run(path).job, resume=path)
    assert resumed.ended == "all 8 rounds are done"
    assert [row["round"] for row in resumed.records] == [*range(1, 9)]


def test_an_error_of_whoever_is_told_ends_the_run_and_is_theirs() -> None:
    def enough(progress: Progress) -> None:
        if isinstance(progress, RoundDone):
            raise InterruptedError("that will do")

    with pytest.raises(InterruptedError, match="that will do"):
        simulate(_job(), on_progress=enough)


def small_network() -> nn.Module:
    """A network of one's own, in Python."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def test_code_stands_where_a_job_takes_its_name() -> None:
    job = _job().but({"model.name": small_network})
    assert job.model.name == f"{__name__}:small_network"
    with pytest.raises(SettingsError, match="has no name of its own"):
        job.but({"model.name": partial(small_network)})


def test_a_job_takes_every_table_and_key_of_a_job_file() -> None:
    assert JobTables.__annotations__.keys() == JobSettings.model_fields.keys()


def test_a_job_shows_what_differs_from_the_defaults() -> None:
    job = Job(model={"name": "mlp"}, training={"rounds": 3})
    assert repr(job).startswith("Job(model={'name': 'mlp'}, training={'rounds': 3}")
    assert "learning_rate" not in str(job)


def test_a_mistake_in_a_job_is_one_sentence() -> None:
    with pytest.raises(SettingsError) as caught:
        Job(training={"round": 3})
    assert str(caught.value) == "the job: unknown key training.round; did you mean 'rounds'?"
    with pytest.raises(SettingsError, match="net is defined in what runs here, where other"):
        run_local(Job(model={"name": "__main__:net"}))


SCRIPT = """
from torch import nn
from edge_coordinator import Job, run_local

def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

"""


def test_what_a_script_defines_is_named_after_its_file(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT + "print(Job(model={'name': network}).model.name)")
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("train:network\n", "")


def test_a_script_that_trains_when_it_is_imported_is_told_where_to_put_that(tmp_path: Path) -> None:
    (tmp_path / "unguarded.py").write_text(SCRIPT + "run_local(Job())")
    with pytest.raises(SettingsError, match="unguarded calls run_local as soon as it is imported"):
        import_factory("unguarded:network", base_dir=tmp_path)
