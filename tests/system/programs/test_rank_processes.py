"""The processes that compute a server side along: how they end, and what they leave."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import Pipe
from pathlib import Path

import psutil
import pytest

from edge_coordinator.training.computing.worker_process import WorkerProcess

WORKER = "edge_coordinator.training.computing.worker"


def test_a_rank_that_a_nameless_signal_ended_is_said_with_its_number(tmp_path: Path) -> None:
    worker = WorkerProcess("cpu", 1, tmp_path)
    assert worker.why_ended() == ""
    os.kill(worker.pid, signal.SIGRTMIN + 1)
    end_s = time.monotonic() + 30
    while not (why := worker.why_ended()) and time.monotonic() < end_s:
        time.sleep(0.01)
    worker.end()
    assert why == f"was killed by signal {signal.SIGRTMIN + 1}"


def test_a_rank_that_rank_0_cannot_talk_to_leaves_the_folder_to_the_others(tmp_path: Path) -> None:
    (tmp_path / "meeting-1").touch()
    ours, theirs = Pipe()
    command = [sys.executable, "-m", WORKER, str(theirs.fileno()), str(os.getpid()), str(tmp_path)]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE) as rank:
        theirs.close()
        ours.send_bytes(b"no JSON")
        _, said = rank.communicate(timeout=60)
    ours.close()
    assert said.decode().strip().splitlines()[-1].startswith("json.decoder.JSONDecodeError")
    assert rank.returncode == 1
    assert (tmp_path / "meeting-1").exists()


def is_running(process: psutil.Process) -> bool:
    """Whether it is more than an entry that the system's first process has not cleared yet."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def is_worker(process: psutil.Process) -> bool:
    """Whether it computes a server side along."""
    try:
        return WORKER in process.cmdline()
    except psutil.NoSuchProcess:
        return False


@pytest.mark.examples
@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.timeout(60)
def test_no_process_outlives_a_run_that_is_ended(ended_by: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge_coordinator", "simulate", "--output", str(tmp_path)]
    wanted = ("--set", "training.server_device=['cpu', 'cpu']", "--rounds", "9999")
    with subprocess.Popen([*command, *wanted, "--data", "digits"], stderr=subprocess.PIPE) as run:
        own = psutil.Process(run.pid)
        while not (ranks := own.children()) and run.poll() is None:
            time.sleep(0.05)
        assert ranks
        while not list(tmp_path.rglob("rounds.jsonl")) and run.poll() is None:
            time.sleep(0.05)
        run.send_signal(ended_by)
        run.wait(30)
    end_s = time.monotonic() + 30
    while any(map(is_running, ranks)) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert not any(map(is_running, ranks))


@pytest.mark.examples
@pytest.mark.timeout(120)
def test_a_local_run_that_is_interrupted_before_its_first_round_ends_with_all_it_started(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "edge_coordinator", "local", "--output", str(tmp_path)]
    wanted = ("--set", "training.server_device=['cpu', 'cpu']", "--model", "mlp", "--devices", "2")
    with subprocess.Popen(
        [*command, *wanted, "--data", "digits"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as run:
        own, started = psutil.Process(run.pid), list[psutil.Process]()
        while not any(is_worker(each) for each in started) and run.poll() is None:
            time.sleep(0.02)
            started = [each for each in own.children(recursive=True) if is_running(each)]
        run.send_signal(signal.SIGINT)
        said, _ = run.communicate(timeout=60)
    assert b"no round was finished; the settings and logs are in" in said
    assert run.returncode == 130
    end_s = time.monotonic() + 30
    while any(map(is_running, started)) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert not any(map(is_running, started))
