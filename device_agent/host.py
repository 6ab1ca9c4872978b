"""One process that serves one device, or hosts several, until it is told to end."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from device_agent.agent.agent import Agent
from device_agent.agent.desired import Applied, DesiredSettings, ProcessSettings, Started
from device_agent.agent.endpoint import DeviceEndpoint
from device_agent.agent.growth import follow_scenario, watch_data
from device_agent.agent.hosting import Hosting
from device_agent.agent.own_data import OwnData
from device_agent.agent.trainer import Trainer
from device_agent.emulation.bus import EmulatedBus
from device_agent.emulation.engine import EmulatedEngine
from device_agent.emulation.machine import as_emulated
from device_agent.engines.engine import Engine
from device_agent.engines.graph_store import GraphStore
from device_agent.engines.measurement import SharedFindings
from device_agent.engines.open import open_engine
from device_agent.profiling.machine import measure_profile
from device_agent.profiling.reference_network import generic_measurement
from device_agent.settings import AgentSettings, device_classes, published_labels
from profiles.emulation import DeviceClass
from runtime.bus.bus import Bus, Will
from runtime.bus.mqtt_bus import MqttBus
from runtime.datasets.samples import Samples
from runtime.datasets.shard import in_order_of_arrival
from runtime.errors import BusError
from runtime.event_loop import call_at_end_of_input, call_on_signals
from runtime.offered import ONNX_ENGINE
from runtime.service.descriptors import allow_many
from runtime.service.health import health_told
from runtime.service.logs import set_log_level
from runtime.service.process import COMPUTE_THREAD
from runtime.wire.commands import Assignment
from runtime.wire.ownership import new_session
from runtime.wire.published import DeviceProfile, DeviceStatus
from runtime.wire.topics import Topics
from runtime.wire.versions import Versions

_GOODBYE_S = 2.0

log = logging.getLogger("cpsl-agent")


async def serve_devices(settings: AgentSettings, samples: Sequence[Samples]) -> None:
    """Serve every device of this process until told to end by a signal or by standard input."""
    allow_many()
    ended = asyncio.Event()
    call_on_signals((signal.SIGTERM, signal.SIGINT), ended.set)
    if settings.end_with_stdin:
        call_at_end_of_input(ended.set)
    with contextlib.ExitStack() as stack:
        pools = _compute_threads(settings, stack)
        shared = SharedByDevices(settings)
        hosted = [
            HostedDevice(settings, device, own, pool, device_class, shared=shared)
            for device, own, pool, device_class in zip(
                settings.devices, samples, pools, device_classes(settings), strict=True
            )
        ]
        telling = health_told(settings.health_file, lambda: _status(hosted))
        async with telling, asyncio.TaskGroup() as tasks:
            serving = [
                tasks.create_task(each.serve(), name=f"device {each.device}") for each in hosted
            ]
            await ended.wait()
            for task in serving:
                task.cancel()


class SharedByDevices:
    """What the devices of this process have in common."""

    def __init__(self, settings: AgentSettings) -> None:
        self.process = new_session()
        """Its token."""
        self.findings = SharedFindings()
        self.settings = ProcessSettings(
            log_level=settings.log_level, threads=settings.num_threads, set_log_level=set_log_level
        )


class HostedDevice:
    """One device of this process: its connection, its data and its engine."""

    def __init__(
        self,
        settings: AgentSettings,
        device: str,
        samples: Samples,
        compute: ThreadPoolExecutor,
        device_class: DeviceClass | None,
        *,
        shared: SharedByDevices,
    ) -> None:
        """`device_class` is what it emulates; None for what this machine is."""
        self.device = device
        self._settings = settings
        self._num_samples = len(samples)
        self._data = _own_data(settings, device, samples, device_class)
        self._compute = compute
        self._class, self._start_s = device_class, time.monotonic()
        self._shared = shared
        self._graphs = GraphStore()
        self._connection: MqttBus | None = None
        self._status = DeviceStatus(
            state="online",
            session=new_session(),
            since_unix_s=time.time(),
            engine=settings.engine,
            version=str(Versions.own()),
            process=shared.process,
        )

    @property
    def is_connected(self) -> bool:
        """Whether it has a connection to the broker now."""
        return self._connection is not None and self._connection.is_connected

    async def serve(self) -> None:
        """Connect, and serve until cancelled."""
        topics = Topics(self._settings.site)
        if least := self._settings.limits.min_cut:
            log.info("%s lets nothing out before layer %s (--min-cut)", self.device, least)
        offline = self._status.model_copy(update={"state": "offline"})
        self._connection = connection = await MqttBus.connect(
            self._settings.broker,
            client_id=f"{self.device}-{new_session()}",  # Who knows it could take it over.
            will=Will(topics.status(self.device), offline.encode()),
            wait=self._settings.wait,
            on_waiting=lambda why: log.warning("%s waits for the broker: %s", self.device, why),
            tls=self._settings.tls,
            once=partial(self._shared.findings.once, "version of MQTT"),
        )
        async with EmulatedBus(connection, self._class) if self._class else connection as bus:
            agent = self._agent(bus, topics)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(agent.serve(), name=f"serve {self.device}")
                    if (growth := self._growth(agent)) is not None:
                        tasks.create_task(growth, name=f"growth {self.device}")
            finally:  # Whatever ended it: closing the connection silences the will.
                with contextlib.suppress(BusError, TimeoutError):
                    async with asyncio.timeout(_GOODBYE_S):
                        await agent.leave()

    def _growth(self, agent: Agent) -> Coroutine[None, None, None] | None:
        """Whatever makes its data more, if anything does."""
        if self._settings.watch_data_s is not None:
            return watch_data(self._settings, self._data, agent, self._compute)
        if self._class and self._class.growth:
            return follow_scenario(self._class, self._num_samples, self._data, agent, self._compute)
        return None

    def _agent(self, bus: Bus, topics: Topics) -> Agent:
        settings, data = self._settings, self._data
        trainer = Trainer(
            self.device,
            data,
            self._build_engine,
            min_cut=settings.limits.min_cut,
            threads=lambda: self._shared.settings.threads,
        )
        desired = self._desired(topics, trainer)
        return Agent(
            endpoint=DeviceEndpoint(self.device, bus, topics, settings.chunk_bytes),
            status=self._status,
            profile=lambda: self._profile(desired),
            trainer=trainer,
            compute=self._compute,
            hosting=Hosting(
                self._shared.findings,
                link_class=self._class,
                generic=generic_measurement(
                    settings.engine,
                    num_threads=settings.num_threads,
                    slowdown=self._class.slowdown if self._class else 1.0,
                ),
                desired=desired,
            ),
        )

    def _profile(self, desired: DesiredSettings) -> DeviceProfile:
        settings, samples = self._settings, self._data.samples
        facts = measure_profile(
            self.device,
            engine=settings.engine,
            num_samples=len(samples),
            sample_shape=samples.sample_shape,
            min_cut=settings.limits.min_cut,
            **(published_labels(samples, self.device) if settings.publish_labels else {}),
        )
        of_run = {"settings": desired.report, "training_samples": self._data.num_training}
        profile = facts.model_copy(update=of_run)
        if self._class is None:
            return profile
        return as_emulated(profile, self._class, elapsed_s=time.monotonic() - self._start_s)

    def _desired(self, topics: Topics, trainer: Trainer) -> DesiredSettings:
        """Take settings by topic, within what this agent was started with."""
        settings = self._settings
        started = Started(
            threads=settings.num_threads,
            min_cut=settings.limits.min_cut,
            knows_layers=settings.engine != ONNX_ENGINE,
        )

        def note(applied: Applied) -> None:
            trainer.wanted_min_cut = applied.get("min_cut", "")
            self._shared.settings.note(self.device, applied)

        return DesiredSettings(self.device, topics, started, on_change=note)

    def _build_engine(self, assignment: Assignment, sample_shape: tuple[int, ...]) -> Engine:
        engine = open_engine(
            self._settings.engine,
            assignment,
            sample_shape=sample_shape,
            graphs=self._graphs,
            num_threads=self._settings.num_threads,
            limits=self._settings.limits,
        )
        return EmulatedEngine(engine, self._class) if self._class else engine


def _own_data(
    settings: AgentSettings, device: str, samples: Samples, stated: DeviceClass | None
) -> OwnData:
    """Its data, of which only some may be there at the beginning."""
    if stated is None or not stated.growth:
        return OwnData(device, samples, grows=settings.watch_data_s is not None)
    ordered = in_order_of_arrival(device, samples, stated.growth_order, seed=settings.seed)
    first = stated.num_there(len(samples), round_=1, elapsed_s=0.0)
    return OwnData(device, ordered, grows=True, num_there=first)


def _status(hosted: Sequence[HostedDevice]) -> str:
    """Say which devices are connected, for whoever watches this process."""
    away = [each.device for each in hosted if not each.is_connected]
    return f"not connected to the broker: {', '.join(away)}" if away else "connected"


def _compute_threads(
    settings: AgentSettings, stack: contextlib.ExitStack
) -> list[ThreadPoolExecutor]:
    """One thread for all devices of this process; an emulated one sleeps in a thread of its own."""
    num_devices = len(settings.devices)
    num_threads = num_devices if settings.scenario else 1
    pools = [
        ThreadPoolExecutor(1, COMPUTE_THREAD, _start_compute, (settings,))
        for _ in range(num_threads)
    ]
    for pool in pools:
        # Whoever is told to end does not wait for what a coordinator has it compute.
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        pool.submit(int)  # The engine is imported while the coordinator is waited for.
    return pools if settings.scenario else pools * num_devices


def _start_compute(settings: AgentSettings) -> None:
    if settings.engine == "torch":
        import torch  # noqa: PLC0415

        torch.set_num_threads(settings.num_threads)
