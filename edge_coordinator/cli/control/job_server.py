"""`cpsl coordinator --serve`: stays on a site, and trains the jobs that it is given, in turn.

Each job is a process of its own, which owns the site as any coordinator does while it trains;
between jobs nobody does. The queue has topics of its own, and a file.
"""

import asyncio
import contextlib
import json
import logging
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_coordinator.cli.control.job_queue import JobQueue
from edge_coordinator.cli.control.submitted import checked_job
from edge_coordinator.job.settings import JobSettings
from runtime.bus.bus import Bus, Connected, Delivery
from runtime.errors import EdgeError, MalformedMessageError, SettingsError
from runtime.plugins import AllowedCode
from runtime.service.exit_codes import ExitCode
from runtime.wire.fields import as_words
from runtime.wire.ownership import Claim, new_session
from runtime.wire.run_control import QueueAnswer, QueuedJob, QueueReport, QueueRequest, QueueStatus
from runtime.wire.topics import Topics

_STOP_S = 30.0
"""How long a job may take to write down what it has, once it is told to end."""

JOB_PROGRAM = (
    *(sys.executable, "-c"),
    "import sys; from edge_coordinator.__main__ import main_by_input; sys.exit(main_by_input())",
)
Say = Callable[[str, str, dict[str, Any]], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """What holds for all jobs of a queue, whatever they say themselves."""

    settings: JobSettings
    """Site, broker and the folder of the runs are the coordinator's own."""
    allowed: AllowedCode
    flags: Sequence[str]
    """What each job's command gets besides."""
    base_dir: Path
    program: Sequence[str] = JOB_PROGRAM
    """What trains a job: it is told its flags on the first line of its input."""


class JobServer:
    """Takes requests at any time, and trains one job after the other."""

    def __init__(self, served: Served, queue: JobQueue, *, say: Say) -> None:
        self._served = served
        self._queue = queue
        self._say = say
        self._topics = Topics(served.settings.site)
        self._own = QueueStatus(state="online", session=new_session(), since_unix_s=time.time())
        self._answers: dict[str, QueueAnswer] = {}
        self._changed = asyncio.Event()
        self._process: Process | None = None
        self._at_work: int | None = None

    def will(self) -> tuple[str, bytes]:
        """Topic and message of its last will."""
        return self._topics.queue_status, self._own.model_copy(update={"state": "offline"}).encode()

    async def run(self, bus: Bus) -> None:
        """Serve until cancelled; TakenError if another serves the site's queue."""
        events = bus.events()
        claim = Claim(
            what=f"queue of site {self._topics.site!r}",
            status_topic=self._topics.queue_status,
            challenge_topic=self._topics.queue_challenge,
            own=self._own,
            decode=QueueStatus.decode,
        )
        await claim.make(bus, events)
        await bus.subscribe(self._topics.queue_request)
        await self._announce(bus)
        waiting = sum(job.state in {"queued", "running"} for job in self._queue.jobs)
        self._say(f"serving the queue of site {self._topics.site}: {waiting} jobs", "serving",
                  {"site": self._topics.site, "num_waiting": waiting})  # fmt: skip
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._work(bus), name="train the jobs")
                async for event in events:
                    match event:
                        case Connected():
                            await self._announce(bus)
                        case Delivery():
                            await self._take(bus, event)
        finally:
            await self._end_process()
            with contextlib.suppress(EdgeError, TimeoutError):
                async with asyncio.timeout(2.0):
                    await self._report(bus)
                    await bus.publish(self.will()[0], self.will()[1], retain=True)

    async def _take(self, bus: Bus, delivery: Delivery) -> None:
        if delivery.topic == self._topics.queue_challenge:
            await self._announce(bus)
        if delivery.topic != self._topics.queue_request or delivery.retained:
            return
        try:
            request = QueueRequest.decode(delivery.payload)
        except MalformedMessageError as error:
            log.warning("a request to the queue is not understood: %s", error)
            return
        if request.request not in self._answers:
            if len(self._answers) > 1000:
                self._answers.clear()
            self._answers[request.request] = await self._answer(request)
        await bus.publish(
            self._topics.queue_answer, self._answers[request.request].encode(), retain=False
        )
        await self._report(bus)

    async def _answer(self, request: QueueRequest) -> QueueAnswer:
        """Do what is asked; a repeat has been answered before."""
        do = self._submit if request.action == "submit" else self._cancel
        try:
            number, words = await do(request)
        except EdgeError as error:
            return QueueAnswer(request=request.request, accepted=False, words=as_words(str(error)))
        return QueueAnswer(request=request.request, accepted=True, number=number, words=words)

    async def _submit(self, request: QueueRequest) -> tuple[int, str]:
        served = self._served
        text = checked_job(
            request.job, served.settings, allowed=served.allowed, base_dir=served.base_dir
        )
        name = request.name or "job"
        job = self._queue.submit(text, name=name, by=request.by, now_s=time.time())
        before = sum(one.state in {"queued", "running"} for one in self._queue.jobs) - 1
        self._changed.set()
        self._say(f"job {job.number} ({job.name}) is queued, {before} before it", "queued",
                  {"number": job.number, "name": job.name, "by": job.by})  # fmt: skip
        return job.number, f"is queued, {before} before it"

    async def _cancel(self, request: QueueRequest) -> tuple[int, str]:
        job = self._queue.job(request.number)
        if job.state not in {"queued", "running"}:
            raise SettingsError(f"job {job.number} is {job.state} already")
        was_running = job.number == self._at_work
        words = f"cancelled by {request.by}" if request.by else "cancelled"
        self._ended(job, "cancelled", words)
        if was_running:
            await self._end_process()
        return job.number, "ends, and writes down what it has" if was_running else "is cancelled"

    async def _work(self, bus: Bus) -> None:
        while True:
            while (job := self._queue.next()) is None:
                self._changed.clear()
                await self._changed.wait()
            await self._train(bus, job)

    async def _train(self, bus: Bus, job: QueuedJob) -> None:
        """Train a job to its end; if this server is ended meanwhile, it stays running."""
        self._at_work = job.number
        job = self._queue.change(job.number, state="running")
        await self._report(bus)
        self._say(f"job {job.number} ({job.name}) begins", "begins", {"number": job.number})
        result, complaint, code = await self._run_process(bus, job)
        self._at_work = None
        now = self._queue.job(job.number)
        figures = {key: result.get(key) for key in ("metric", "test_metric")}
        if now.state == "cancelled":
            self._queue.change(job.number, **figures)
        elif code == ExitCode.DONE:
            ended = str(result.get("ended") or "no round was finished")
            self._ended(now, "done", ended, **figures)
        else:
            self._ended(now, "failed", complaint or f"ended with exit code {code}", **figures)
        await self._report(bus)

    async def _run_process(self, bus: Bus, job: QueuedJob) -> tuple[dict[str, Any], str, int]:
        """Run the command of a job: its last event, its last complaint, its exit code."""
        log_file = self._queue.folder / f"job-{job.number}.log"
        with log_file.open("ab") as log_stream:
            process = self._process = await asyncio.create_subprocess_exec(
                *self._served.program,
                stdin=PIPE,
                stdout=PIPE,
                stderr=log_stream,
                start_new_session=True,
                limit=2**24,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(self._words(job)).encode() + b"\n")
        result: dict[str, Any] = {}
        async for line in process.stdout:
            event = _event_of(line)
            if event.get("event") == "run":
                self._queue.change(job.number, directory=event["directory"])
                await self._report(bus)
            elif event.get("event") == "result":
                result = event
        code = await process.wait()
        self._process = None
        lines = log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return result, as_words(lines[-1]) if lines else "", code

    def _words(self, job: QueuedJob) -> list[str]:
        """Begin a job, or go on with the run that it has begun."""
        words = ["coordinator", "--json", "--wait", *self._served.flags]
        config = ["--config", str(self._queue.job_file(job.number))]
        if not job.directory or not (Path(job.directory) / "checkpoint.safetensors").exists():
            return [*words, *config]
        broker = self._served.settings.broker.url
        allowed = [word for name in self._served.allowed.names for word in ("--allow-code", name)]
        return [*words, "--resume", job.directory, "--broker", str(broker), *allowed]

    def _ended(self, job: QueuedJob, state: str, words: str, **figures: object) -> None:
        now_s = time.time()
        self._queue.change(job.number, state=state, words=words, ended_at_unix_s=now_s, **figures)
        self._say(f"job {job.number} ({job.name}) is {state}: {words}", "ended",
                  {"number": job.number, "state": state, "words": words})  # fmt: skip

    async def _end_process(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()

    async def _announce(self, bus: Bus) -> None:
        await bus.publish(self._topics.queue_status, self._own.encode(), retain=True)
        await self._report(bus)

    async def _report(self, bus: Bus) -> None:
        report = QueueReport(jobs=self._queue.jobs)
        await bus.publish(self._topics.queue, report.encode(), retain=True)


def _event_of(line: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict):
            return event
    return {}
