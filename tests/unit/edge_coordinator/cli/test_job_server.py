"""A coordinator that stays on its site and trains the jobs of a queue, one after another."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_coordinator.cli.control.job_queue import MOST_OVER, JobQueue
from edge_coordinator.cli.control.job_server import JobServer, Served
from edge_coordinator.job.file import load_job
from edge_coordinator.monitor.asking_queue import ask_queue, queue_of
from runtime.bus.bus import Bus, Delivery
from runtime.bus.memory_bus import MemoryBroker
from runtime.errors import StorageError, TakenError
from runtime.plugins import AllowedCode
from runtime.wire.run_control import QueuedJob, QueueReport
from tests.sites import TOPICS

TRAINS = """
import json, pathlib, sys
words = json.loads(sys.stdin.readline())
run = pathlib.Path(words[words.index("--resume") + 1] if "--resume" in words else "run")
is_new = "--config" in words
settings = pathlib.Path(words[words.index("--config") + 1]).read_text() if is_new else ""
if is_new:
    run.mkdir(exist_ok=True)
    (run / "checkpoint.safetensors").touch()
print(json.dumps({"event": "run", "directory": str(run)}), flush=True)
if "rounds = 7" in settings:
    sys.exit("there is no data")
if "rounds = 9" in settings:
    sys.stdin.read()  # As long as the queue is served.
print(json.dumps({"event": "result", "ended": " ".join(words[-6:]), "metric": "mae",
                  "test_metric": 0.5}), flush=True)
"""
JOB = "[training]\nrounds = {}\n[plan]\nmode = 'by_hand'\ncut = 'pool1'\n"


@asynccontextmanager
async def _serving(broker: MemoryBroker, folder: Path) -> AsyncIterator[None]:
    settings = load_job(None, {"broker.url": "mqtt://edge", "output": str(folder)})
    program = (sys.executable, "-c", TRAINS)
    served = Served(settings, AllowedCode(("nets",)), (), folder, program)
    server = JobServer(served, JobQueue(folder / "queue"), say=lambda *_: None)
    async with broker.connect("queue") as bus:
        serving = asyncio.create_task(server.run(bus))
        try:
            while b'"online"' not in bytes(broker.retained.get(TOPICS.queue_status, b"")):
                await bus.unsubscribe("nothing")  # Let others run.
            yield
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving


async def _until(broker: MemoryBroker, number: int, state: str) -> QueueReport:
    async with asyncio.timeout(60), broker.connect("watcher") as bus:
        await bus.subscribe(TOPICS.queue)
        async for event in bus.events():
            if isinstance(event, Delivery):
                report = QueueReport.decode(event.payload)
                found = [job for job in report.jobs if (job.number, job.state) == (number, state)]
                if found and found[0].directory:
                    return report
    raise AssertionError


async def _submit(bus: Bus, rounds: int) -> int:
    answer = await ask_queue(
        bus, TOPICS, action="submit", by="anna", name="job", job=JOB.format(rounds)
    )
    assert answer.accepted, answer.words
    return answer.number


async def test_jobs_are_trained_in_turn_fail_by_name_are_cancelled_and_outlive_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    broker = MemoryBroker()
    async with broker.connect("people") as bus:
        async with _serving(broker, tmp_path):
            numbers = [await _submit(bus, rounds) for rounds in (7, 9, 5, 5)]
            assert numbers == [1, 2, 3, 4]
            report = await _until(broker, 2, "running")
            assert [job.state for job in report.jobs] == ["failed", "running", "queued", "queued"]
            assert report.jobs[0].words == "there is no data"
            cancelled = await ask_queue(bus, TOPICS, action="cancel", by="anna", number=3)
            assert cancelled.accepted
        async with broker.connect("later") as other:
            offline = await queue_of(other, TOPICS)
        assert (offline.state, offline.jobs[1].state) == ("offline", "running")
        async with _serving(broker, tmp_path):
            report = await _until(broker, 4, "done")
    states = [job.state for job in report.jobs]
    assert states == ["failed", "done", "cancelled", "done"]
    assert "--resume run --broker mqtt://edge" in report.jobs[1].words  # It went on.
    assert (report.jobs[3].metric, report.jobs[3].test_metric) == ("mae", 0.5)
    assert report.jobs[2].words == "cancelled by anna"


async def test_what_a_job_may_not_ask_for_is_refused_and_the_rest_is_the_coordinators(
    tmp_path: Path,
) -> None:
    broker = MemoryBroker()
    theirs = "site = 'other'\noutput = '/elsewhere'\n[broker]\nurl = 'mqtt://other'\n"
    async with broker.connect("people") as bus, _serving(broker, tmp_path):
        for job, why in (
            ("[model]\nname = 'os:system'\n", "'os:system' is code, which nobody allowed"),
            ("[training]\nrounds = -1\n", "training.rounds"),
            ("no toml", "the job is not TOML"),
            ("[plan]\nmode = 'replay:/etc'\n", "names a folder of the coordinator's machine"),
        ):
            answer = await ask_queue(bus, TOPICS, action="submit", by="", name="x", job=job)
            assert not answer.accepted
            assert why in answer.words
        answer = await ask_queue(bus, TOPICS, action="cancel", by="", number=1)
        assert answer.words == "there is no job 1 in the queue"
        taken = await ask_queue(bus, TOPICS, action="submit", by="", name="x", job=theirs)
        settings = load_job(tmp_path / "queue" / f"job-{taken.number}.toml", {})
        assert (settings.site, settings.broker.url) == ("default", "mqtt://edge")
        assert settings.output == tmp_path
        served = Served(load_job(None, {}), AllowedCode(()), (), tmp_path)
        other = JobServer(served, JobQueue(tmp_path / "other"), say=lambda *_: None)
        async with broker.connect("other") as third:
            with pytest.raises(TakenError, match="the queue of site 'default' is in use"):
                await other.run(third)


def test_a_queue_forgets_the_oldest_that_are_over_and_says_what_is_wrong_with_its_file(
    tmp_path: Path,
) -> None:
    over = [
        QueuedJob(number=number, name="a", state="done", submitted_at_unix_s=0.0).model_dump()
        for number in range(1, MOST_OVER + 1)
    ]
    file = tmp_path / "queue.json"
    file.write_text(json.dumps({"jobs": over, "last_number": MOST_OVER}))
    queue = JobQueue(tmp_path)
    queue.job_file(1).touch()
    job = queue.submit("", name="a", by="", now_s=0.0)
    assert JobQueue(tmp_path).next() == job
    queue.change(job.number, state="failed")
    assert [job.number for job in JobQueue(tmp_path).jobs] == list(range(2, MOST_OVER + 2))
    assert not queue.job_file(1).exists()
    file.write_text("{")
    with pytest.raises(StorageError, match=r"queue\.json cannot be read as a queue of jobs"):
        JobQueue(tmp_path)
