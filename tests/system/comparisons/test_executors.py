"""A comparison that is trained elsewhere: on a Dask cluster of real processes."""

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edge_coordinator.__main__ import main

HAS_DASK = importlib.util.find_spec("distributed") is not None
COMPARE = (
    *("compare", "--methods", "cpsl,cl", "--scenario", "heterogeneous", "--devices", "4"),
    *("--clusters", "2", "--rounds", "2", "--draws", "1", "--seeds", "2", "--workers", "1"),
)


@pytest.mark.parametrize("where", ["127.0.0.1:8786", "dask://8786", "dask://host:name"])
def test_an_executor_that_is_none_is_refused_in_a_sentence(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMPARE, "--output", str(tmp_path), "--executor", where]) == 1
    assert f"--executor {where}: it is of the form dask://HOST:PORT" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(HAS_DASK, reason="says what to install where there is no dask")
def test_without_dask_it_is_said_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMPARE, "--output", str(tmp_path), "--executor", "dask://127.0.0.1:1"]) == 1
    assert "pip install 'cpsl-edge[dask]'" in capsys.readouterr().err


@pytest.mark.skipif(not HAS_DASK, reason="needs dask: pip install 'cpsl-edge[dask]'")
@pytest.mark.timeout(400)
def test_a_dask_cluster_gives_the_files_that_one_machine_gives(
    tmp_path: Path, scheduler: str
) -> None:
    rounds = {}
    for name, extra in {"here": (), "there": ("--executor", scheduler)}.items():
        output = tmp_path / name
        command = [sys.executable, "-m", "edge_coordinator", *COMPARE, *extra]
        subprocess.run([*command, "--output", str(output)], check=True, timeout=300)
        (report,) = output.iterdir()
        rounds[name] = (report / "rounds.csv").read_text()
    assert rounds["here"].count("\n") == 9
    assert rounds["there"] == rounds["here"]


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    """A scheduler and two workers, each a process of its own, on loopback; its address."""
    known = tmp_path / "scheduler.json"
    common = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(known)]
    with ExitStack() as started:
        for arguments in (
            ["distributed.cli.dask_scheduler", "--port", "0"],
            ["distributed.cli.dask_worker", "--nworkers", "2", "--nthreads", "2"],
        ):
            process = started.enter_context(
                subprocess.Popen([sys.executable, "-m", *arguments, *common])
            )
            started.callback(process.terminate)
            while not known.exists():
                assert process.poll() is None, "the scheduler has ended"
                time.sleep(0.05)
        address = json.loads(known.read_text())["address"].removeprefix("tcp://")
        yield f"dask://{address}"
