"""`cpsl-agent`: run one device, or host several, until stopped."""

import argparse
import asyncio
import contextlib
import importlib.util
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

from device_agent.agent import Agent
from device_agent.compute_probe import COMPUTE_PROBE_S
from device_agent.emulated_bus import EmulatedBus
from device_agent.emulated_engine import EmulatedEngine
from device_agent.executor import ENGINES, Engine, open_engine
from device_agent.facts import measure_profile
from device_agent.graph_shelf import GraphShelf
from device_agent.memory import memory_sentence
from device_agent.profile_command import ProfileSettings, measure_device
from device_agent.settings import (
    AgentSettings,
    count_labels,
    device_classes,
    load_samples,
    parse_shard,
)
from device_agent.workload import Workload
from profiles.emulation import DeviceClass
from runtime.allocator import keep_freed_memory
from runtime.broker_url import TlsFiles
from runtime.bus import Will
from runtime.datasets.samples import Samples
from runtime.drive import DEFAULT_CHUNK_BYTES
from runtime.errors import BusError, EdgeError, root_cause
from runtime.messages import Assignment
from runtime.mqtt import MqttBus
from runtime.ownership import new_session
from runtime.published import ComputeProfile, DeviceStatus
from runtime.topics import Topics, check_name

_GOODBYE_S = 2.0

log = logging.getLogger("cpsl-agent")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_profile = words[:1] == ["profile"]
    flags = _profile_parser().parse_args(words[1:]) if is_profile else _parser().parse_args(words)
    logging.basicConfig(
        level=flags.log_level.upper(), format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    keep_freed_memory()
    try:
        if is_profile:
            text, as_json = asyncio.run(measure_device(_profile_settings(flags)))
            print(as_json if flags.json else text)
            return 0
        settings = _settings(flags)
        samples = load_samples(settings)
        asyncio.run(_serve(settings, samples, flags))
        log.info("%s", memory_sentence())
    except KeyboardInterrupt:
        return 130
    except (EdgeError, BaseExceptionGroup) as error:
        cause = root_cause(error)
        if not isinstance(cause, EdgeError):
            raise
        print(f"cpsl-agent: {cause}", file=sys.stderr)
        return 1
    return 0


async def _serve(
    settings: AgentSettings, samples: Sequence[Samples], flags: argparse.Namespace
) -> None:
    """Serve every device of this process until told to end."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # Windows has no signals on its loop.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
    if flags.end_with_stdin:
        loop.add_reader(sys.stdin, _on_stdin, ended)
    tls = TlsFiles(flags.cafile, flags.certfile, flags.keyfile)
    emulated = device_classes(settings)
    with contextlib.ExitStack() as stack:
        pools = _compute_threads(settings, stack)
        async with asyncio.TaskGroup() as tasks:
            serving = [
                tasks.create_task(
                    _serve_device(
                        settings, device, own, pool, tls, wait=flags.wait, device_class=device_class
                    ),
                    name=f"device {device}",
                )
                for device, own, pool, device_class in zip(
                    settings.devices, samples, pools, emulated, strict=True
                )
            ]
            await ended.wait()
            for task in serving:
                task.cancel()


def _compute_threads(
    settings: AgentSettings, stack: contextlib.ExitStack
) -> list[ThreadPoolExecutor]:
    """One thread for all devices of this process; an emulated one sleeps in a thread of its own."""
    num_devices = len(settings.devices)
    num_threads = num_devices if settings.scenario else 1
    pools = [
        stack.enter_context(ThreadPoolExecutor(1, "compute", _start_compute, (settings,)))
        for _ in range(num_threads)
    ]
    for pool in pools:
        pool.submit(int)  # The engine is imported while the coordinator is waited for.
    return pools if settings.scenario else pools * num_devices


async def _serve_device(
    settings: AgentSettings,
    device: str,
    samples: Samples,
    compute: ThreadPoolExecutor,
    tls: TlsFiles,
    *,
    wait: bool,
    device_class: DeviceClass | None,
) -> None:
    topics = Topics(settings.site)
    status = DeviceStatus(
        state="online",
        session=new_session(),
        since_unix_s=time.time(),
        engine=settings.engine,
        version=version("cpsl"),
    )
    offline = status.model_copy(update={"state": "offline"})
    connection = await MqttBus.connect(
        settings.broker,
        client_id=f"{device}-{status.session}",
        will=Will(topics.status(device), offline.encode()),
        wait=wait,
        on_waiting=lambda why: log.warning("%s is waiting for the broker: %s", device, why),
        tls=tls,
    )
    async with EmulatedBus(connection, device_class) if device_class else connection as bus:
        agent = Agent(
            device=device,
            bus=bus,
            topics=topics,
            status=status,
            profile=partial(
                measure_profile,
                device,
                engine=settings.engine,
                num_samples=len(samples),
                sample_shape=samples.sample_shape,
                label_counts=count_labels(samples) if settings.publish_labels else None,
            ),
            workload=Workload(
                device, samples, partial(_build_engine, settings, device_class, GraphShelf())
            ),
            compute=compute,
            chunk_bytes=settings.chunk_bytes,
            generic_compute=partial(_measure_generic, device_class)
            if settings.engine == "torch"
            else None,
        )
        try:
            await agent.serve()
        except asyncio.CancelledError:  # Told to end; without this the will would not speak.
            with contextlib.suppress(BusError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await agent.leave()
            raise


def _build_engine(
    settings: AgentSettings,
    device_class: DeviceClass | None,
    graphs: GraphShelf,
    assignment: Assignment,
    sample_shape: tuple[int, ...],
) -> Engine:
    engine = open_engine(
        settings.engine,
        assignment,
        sample_shape=sample_shape,
        graphs=graphs,
        num_threads=settings.num_threads,
    )
    return EmulatedEngine(engine, device_class) if device_class else engine


def _measure_generic(device_class: DeviceClass | None) -> ComputeProfile:
    from device_agent.torch_engine import generic_profile  # noqa: PLC0415

    slowdown = device_class.slowdown if device_class else 1.0
    return generic_profile(budget_s=COMPUTE_PROBE_S, slowdown=slowdown)


def _start_compute(settings: AgentSettings) -> None:
    if settings.engine == "torch":
        import torch  # noqa: PLC0415

        from runtime.models.side import warm_up  # noqa: PLC0415

        torch.set_num_threads(settings.num_threads)
        warm_up()


def _on_stdin(ended: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        ended.set()


def _settings(flags: argparse.Namespace) -> AgentSettings:
    has_torch = importlib.util.find_spec("torch") is not None
    return AgentSettings(
        broker=flags.broker,
        site=flags.site,
        devices=tuple(flags.id),
        data=flags.data,
        shards=tuple(parse_shard(text) for text in flags.shard),
        partition=flags.partition,
        seed=flags.seed,
        engine=flags.engine or ("torch" if has_torch else "onnxruntime"),
        num_threads=flags.threads,
        chunk_bytes=flags.chunk_bytes,
        scenario=flags.scenario,
        publish_labels=flags.publish_labels,
    )


def _profile_settings(flags: argparse.Namespace) -> ProfileSettings:
    return ProfileSettings(
        device=check_name("device id", flags.id),
        site=flags.site,
        model=flags.model,
        batch_size=flags.batch_size,
        num_threads=flags.threads,
        broker=flags.broker,
        chunk_bytes=flags.chunk_bytes,
        tls=TlsFiles(flags.cafile, flags.certfile, flags.keyfile),
    )


def _profile_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cpsl-agent profile",
        description="Measure this device, and with a broker its link, and print what it found.",
    )
    add = parser.add_argument
    add("--model", default="lenet", help="built-in network to time (lenet)")
    add("--batch-size", type=int, default=16, help="samples in a mini-batch (16)")
    add("--threads", type=int, default=1, help="threads of the arithmetic (1)")
    add("--broker", metavar="URL", help="measure the link to this broker")
    add("--id", default="this-device", help="this device's id")
    add("--site", default="default", help="part of every topic")
    add("--chunk-bytes", type=int, default=DEFAULT_CHUNK_BYTES, help=argparse.SUPPRESS)
    add("--json", action="store_true", help="print the profile as it would be published")
    add("--log-level", default="warning", choices=["debug", "info", "warning", "error"])
    _add_tls_flags(parser)
    return parser


def _add_tls_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cafile", type=Path, help="whom to trust, for mqtts")
    parser.add_argument("--certfile", type=Path, help="client certificate")
    parser.add_argument("--keyfile", type=Path, help="its key")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cpsl-agent",
        description="Train the device side of a split network on this device's own data, as the "
        "coordinator asks over MQTT. Runs until stopped; the coordinator may come later.",
        epilog="`cpsl-agent profile` measures this device once and prints what it found.",
    )
    add = parser.add_argument
    add("--version", action="version", version=f"cpsl {version('cpsl')}")
    add(
        "--broker",
        required=True,
        metavar="URL",
        help="mqtt://[user:password@]host[:port] or mqtts://…",
    )
    add("--id", required=True, action="append", help="this device's id; again to host another")
    add("--site", default="default", help="part of every topic; that of the coordinator")
    add(
        "--data",
        required=True,
        metavar="SOURCE",
        help="digits, mnist:DIR, npz:FILE, folder:DIR or package.module:factory",
    )
    add(
        "--shard",
        action="append",
        default=[],
        metavar="I/N",
        help="take the I-th of N parts of the data (from 0); one for each --id",
    )
    add("--partition", default="iid", help="how parts are made: iid, classes:K, dirichlet:ALPHA")
    add("--seed", type=int, default=0, help="seed of the partition; that of the job")
    add("--engine", choices=list(ENGINES), help="what computes; torch where it is installed")
    add("--threads", type=int, default=1, help="threads of the arithmetic (1)")
    add("--wait", action="store_true", help="if the broker is not there, wait for it")
    _add_tls_flags(parser)
    add(
        "--chunk-bytes",
        type=int,
        default=DEFAULT_CHUNK_BYTES,
        help="tensors travel in chunks of this",
    )
    add("--publish-labels", action="store_true", help="tell how many samples of each class it has")
    add(
        "--scenario",
        metavar="NAME",
        help="emulate slower devices and links: uniform, mixed, one-straggler, fading or a file; "
        "the number of the shard picks the class",
    )
    add("--end-with-stdin", action="store_true", help="end when standard input does")
    add("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


if __name__ == "__main__":
    sys.exit(main())
