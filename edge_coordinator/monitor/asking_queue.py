"""Asking the coordinator that serves a site's queue of jobs."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Literal

from edge_coordinator.monitor.asking import ANSWER_S
from runtime.bus.bus import Bus, Delivery
from runtime.errors import MalformedMessageError, SettingsError
from runtime.wire.ownership import new_session
from runtime.wire.run_control import QueueAnswer, QueuedJob, QueueReport, QueueRequest, QueueStatus
from runtime.wire.topics import Topics


async def ask_queue(
    bus: Bus,
    topics: Topics,
    *,
    action: Literal["submit", "cancel"],
    by: str,
    name: str = "",
    job: str = "",
    number: int = 0,
) -> QueueAnswer:
    """Ask for a job to be taken or given up; SettingsError if nobody answers."""
    request = QueueRequest(
        action=action, request=new_session(), by=by, name=name, job=job, number=number
    )
    await bus.subscribe(topics.queue_answer)
    await bus.publish(topics.queue_request, request.encode(), retain=False)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            async for event in bus.events():
                if isinstance(event, Delivery) and event.topic == topics.queue_answer:
                    with contextlib.suppress(MalformedMessageError):
                        answer = QueueAnswer.decode(event.payload)
                        if answer.request == request.request:
                            return answer
    raise SettingsError(
        f"nobody who serves the queue of site {topics.site!r} answered within {ANSWER_S:.0f} s: "
        f"cpsl coordinator --serve does, and this account has to be let write to "
        f"{topics.queue_request}"
    )


@dataclass(frozen=True)
class QueueView:
    """A site's queue as it was told last, and whether somebody serves it now."""

    state: str
    """`online` or `offline`."""
    jobs: tuple[QueuedJob, ...]


async def queue_of(bus: Bus, topics: Topics) -> QueueView:
    """Look at a site's queue; SettingsError if there never was one."""
    await bus.subscribe(topics.queue_status)
    await bus.subscribe(topics.queue)
    status: QueueStatus | None = None
    report: QueueReport | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_S / 5):
            async for event in bus.events():
                match event:
                    case Delivery(topic, payload) if payload and topic == topics.queue_status:
                        status = QueueStatus.decode(payload)
                    case Delivery(topic, payload) if payload and topic == topics.queue:
                        report = QueueReport.decode(payload)
                if status is not None and report is not None:
                    return QueueView(status.state, report.jobs)
    raise SettingsError(
        f"site {topics.site!r} of this broker has no queue; cpsl coordinator --serve makes one"
    )
