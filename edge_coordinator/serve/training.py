"""One job over one broker, from connecting to saying goodbye."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edge_coordinator.coordinator import Coordinator
from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.devices.link_survey import LinkSurvey
from edge_coordinator.devices.tolerance import Tolerance
from edge_coordinator.job.job import Job
from edge_coordinator.replanning.memory import RunMemory
from edge_coordinator.replanning.participation import Participation
from edge_coordinator.rounds.device_graphs import GraphExports
from edge_coordinator.rounds.device_survey import DeviceSurvey
from edge_coordinator.rounds.evaluation import Evaluator
from edge_coordinator.rounds.planning import RoundPlanning
from edge_coordinator.rounds.recovery import Recovery
from edge_coordinator.rounds.report import Reporting
from edge_coordinator.rounds.round import TrainingRounds
from edge_coordinator.rounds.server_thread import EdgeWorker
from edge_coordinator.rounds.training import RoundTraining, Turns
from edge_coordinator.run.checkpoint import SavedProgress
from edge_coordinator.run.control import RunControl
from edge_coordinator.run.events import Observer
from edge_coordinator.run.faults import Faults
from edge_coordinator.run.site_publisher import SitePublisher
from edge_coordinator.training.edge_model import EdgeModel
from runtime.bus.broker_url import TlsFiles
from runtime.bus.bus import Bus, Will
from runtime.bus.mqtt_bus import MqttBus
from runtime.service.health import health_told
from runtime.wire.history import History
from runtime.wire.names import ClassNames
from runtime.wire.ownership import new_session
from runtime.wire.published import CoordinatorStatus
from runtime.wire.topics import Topics


async def serve_job(
    job: Job,
    model: EdgeModel,
    *,
    url: str,
    observers: Sequence[Observer],
    progress: SavedProgress,
    on_waiting: Callable[[str], None] | None,
    history: History | None = None,
    health_file: Path | None = None,
) -> None:
    """Train a job with the devices of a broker; with `on_waiting`, wait for the broker too.

    `history` holds the rounds of a run that goes on, for those who watch.
    """
    broker, topics = job.settings.broker, Topics(job.settings.site)
    status = new_status(job.assignment.run, classes=job.classes)
    offline = status.model_copy(update={"state": "offline"})
    connection: list[MqttBus] = []
    async with health_told(health_file, lambda: _health(connection)):
        bus = await MqttBus.connect(
            url,
            client_id=f"coordinator-{new_session()}",  # Who knows it could take it over.
            will=Will(topics.coordinator_status, offline.encode()),
            wait=on_waiting is not None,
            on_waiting=on_waiting,
            tls=TlsFiles(broker.cafile, broker.certfile, broker.keyfile),
        )
        connection.append(bus)
        async with bus:
            await serve_on(
                bus,
                job,
                model,
                status=status,
                observers=observers,
                progress=progress,
                history=history,
            )


def _health(connection: Sequence[MqttBus]) -> str:
    return "connected" if any(bus.is_connected for bus in connection) else "waiting for the broker"


async def serve_on(
    bus: Bus,
    job: Job,
    model: EdgeModel,
    *,
    status: CoordinatorStatus,
    observers: Sequence[Observer],
    progress: SavedProgress,
    history: History | None = None,
) -> None:
    """Train a job over a bus that stands."""
    topics, faults = Topics(job.settings.site), Faults()
    control = _control_of(job, progress)
    publisher = SitePublisher(bus, topics, status, faults, history or History(), control=control)
    events = bus.events()
    await publisher.claim(events)
    channel = _channel(bus, topics, job, publisher)
    links = LinkSurvey(job, channel)
    coordinator = _coordinator(
        job, model, channel, links, observers=[*observers, publisher], progress=progress,
        faults=faults, control=control,
    )  # fmt: skip
    with _computing(job, model, faults) as worker:
        try:
            beside = {
                "listen": channel.listen(events),
                "publish": publisher.publish(),
                "hold": publisher.hold(),
                "admit": coordinator.admit(),
                "survey": links.serve(),
                "meet": worker.do(model.meet),
            }
            async with asyncio.TaskGroup() as tasks:
                background = [tasks.create_task(each, name=name) for name, each in beside.items()]
                await channel.open()
                await coordinator.run(worker)
                for task in background:
                    task.cancel()
        finally:  # Whatever ended it: closing the connection silences the will.
            await publisher.leave()


@contextmanager
def _computing(job: Job, model: EdgeModel, faults: Faults) -> Iterator[EdgeWorker]:
    """Compute in a thread, and on all devices: these end first, as the thread may wait for them."""
    with (
        EdgeWorker(num_threads=job.settings.server_threads) as worker,
        model.on_all_devices(faults.count),
    ):
        yield worker


def _channel(bus: Bus, topics: Topics, job: Job, publisher: SitePublisher) -> DeviceChannel:
    return DeviceChannel(
        bus,
        topics,
        publisher,
        run=job.assignment.run,
        tolerance=Tolerance.of(job.settings.devices),
        chunk_bytes=job.settings.broker.chunk_bytes,
    )


def _coordinator(
    job: Job,
    model: EdgeModel,
    channel: DeviceChannel,
    links: LinkSurvey,
    *,
    observers: Sequence[Observer],
    progress: SavedProgress,
    faults: Faults,
    control: RunControl,
) -> Coordinator:
    reporting = Reporting(job, channel, observers, faults)
    memory = RunMemory.decode(progress.reached.memory)
    participation = Participation(job, channel, memory, reporting.say)
    exports = GraphExports(job, model, channel, reporting.say)
    survey = DeviceSurvey(channel, exports, links)
    planning = RoundPlanning(job, model, exports, survey, memory=memory.planner, faults=faults)
    turns = Turns(job, channel, exports)
    training = RoundTraining(job, model, turns, reporting.tell, bounds=participation.bounds)
    evaluator = Evaluator(job, model, channel, turns, reporting.tell)
    rounds = TrainingRounds(participation, planning, training, evaluator, reporting)
    recovery = Recovery(job, model, progress, faults)
    return Coordinator(participation, planning, rounds, recovery, reporting, control=control)


def _control_of(job: Job, progress: SavedProgress) -> RunControl:
    given = "" if job.given_plans is None else "the plans of this run are given, not made"
    control = RunControl(job.assignment.run, why_no_replan=given)
    control.round = progress.reached.round
    return control


def new_status(run: int, *, classes: ClassNames = ()) -> CoordinatorStatus:
    """Begin a session of a coordinator, of a run with these classes if they have names."""
    return CoordinatorStatus(
        state="online",
        session=new_session(),
        since_unix_s=time.time(),
        run=run,
        classes=classes or None,
    )
