"""How close a link's measured rate comes to the rate it really has, up and down.

Two network namespaces with a pair of virtual Ethernet devices between them, shaped by `tc` (a
token bucket on each side). The broker and the coordinator's end are on one side, the device on the
other. Needs root, `ip`, `tc` and mosquitto:

    python -m benchmarks.devices.link_rate
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from device_agent.profiling.link import LinkProbe
from edge_coordinator.devices.link_measurement import LinkEcho
from edge_coordinator.local.broker import find_mosquitto
from profiles.link_estimate import LinkFigures
from runtime.bus.bus import Delivery
from runtime.bus.mqtt_bus import MqttBus
from runtime.offered import DEFAULT_CHUNK_BYTES
from runtime.protocol.link_probe import MAX_PROBE_S
from runtime.wire.commands import MeasureLink
from runtime.wire.topics import Topics

RATES_MBIT = ((1, 1), (1, 10), (5, 5), (20, 20), (20, 100), (100, 20), (100, 100))
"""Up and down."""
ALLOWED_ERROR = 0.10
BUDGET_BYTES = 40_000_000
TOPICS, DEVICE = Topics("bench"), "d0"
EDGE, AGENT = f"cpsl-edge-{os.getpid()}", f"cpsl-agent-{os.getpid()}"
_CONFIGURATION = Path(tempfile.gettempdir()) / f"{EDGE}.conf"
EDGE_ADDRESS, AGENT_ADDRESS, PORT = "10.213.77.1", "10.213.77.2", 18830


def main() -> int:
    """Measure every pair of rates; 1 if one is further off than allowed."""
    parser = argparse.ArgumentParser(description="Measured against shaped link rates.")
    parser.add_argument("--agent", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--echo", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.agent:
        print(asyncio.run(_measure()))
        return 0
    if flags.echo:
        asyncio.run(_echo())
        return 0
    worst = 0.0
    print("shaped up/down   measured up (error)     measured down (error)   rtt ms  seconds")
    with _namespaces(), _in_namespace(EDGE, *_broker()), _in_namespace(EDGE, *_self("--echo")):
        for up_mbit, down_mbit in RATES_MBIT:
            _shape(AGENT, up_mbit)
            _shape(EDGE, down_mbit)
            up_bps, down_bps, round_trip_s, probe_s = _measured()
            errors = (up_bps / 1e6 / up_mbit - 1, down_bps / 1e6 / down_mbit - 1)
            worst = max(worst, *map(abs, errors))
            print(
                f"{up_mbit:5} {down_mbit:5} {up_bps / 1e6:12.2f} ({errors[0]:+6.1%})"
                f" {down_bps / 1e6:18.2f} ({errors[1]:+6.1%}) {round_trip_s * 1e3:11.2f}"
                f" {probe_s:8.2f}"
            )
    print(f"largest error {worst:.1%}, allowed {ALLOWED_ERROR:.0%}")
    return int(worst > ALLOWED_ERROR)


def _measured() -> Sequence[float]:
    """Run the device's end in its namespace: rates up and down, round trip, seconds."""
    command = ["ip", "netns", "exec", AGENT, *_self("--agent")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return [float(word) for word in done.stdout.split()]


async def _measure() -> str:
    async with await MqttBus.connect(_url(), client_id="device", wait=True) as bus:
        probe = LinkProbe(DEVICE, bus, TOPICS, chunk_bytes=DEFAULT_CHUNK_BYTES)
        await bus.subscribe(TOPICS.down(DEVICE, "+"))
        ready = asyncio.Event()

        async def listen() -> None:
            async for event in bus.events():
                if not isinstance(event, Delivery):
                    continue
                if event.topic == TOPICS.down(DEVICE, "probe"):
                    probe.receive(event.payload)
                else:
                    ready.set()

        listening = asyncio.create_task(listen())
        await ready.wait()
        begin = MeasureLink(probe=time.time_ns(), budget_bytes=BUDGET_BYTES, budget_s=MAX_PROBE_S)
        await bus.publish(TOPICS.up(DEVICE, "begin"), begin.encode(), retain=False)
        start_s = time.monotonic()
        figures: LinkFigures = (await probe.measure(begin))[0]
        seconds = time.monotonic() - start_s
        listening.cancel()
        return f"{figures.up_bps} {figures.down_bps} {figures.round_trip_s} {seconds}"


async def _echo() -> None:
    """Answer one measurement after another."""
    async with (
        await MqttBus.connect(_url(), client_id="edge", wait=True) as bus,
        asyncio.TaskGroup() as tasks,
    ):
        await bus.subscribe(TOPICS.up(DEVICE, "+"))
        await bus.publish(TOPICS.down(DEVICE, "ready"), b"ready", retain=True)
        echo: LinkEcho | None = None
        async for event in bus.events():
            if not isinstance(event, Delivery):
                continue
            if event.topic == TOPICS.up(DEVICE, "begin"):
                request = MeasureLink.decode(event.payload)
                echo = LinkEcho(
                    bus, TOPICS, device=DEVICE, request=request, chunk_bytes=DEFAULT_CHUNK_BYTES
                )
                tasks.create_task(echo.serve())
            elif echo is not None:
                echo.receive(event.payload)


def _url() -> str:
    return f"mqtt://{EDGE_ADDRESS}:{PORT}"


def _self(flag: str) -> list[str]:
    return [sys.executable, __file__, flag]


def _broker() -> list[str]:
    executable = find_mosquitto()
    if executable is None:
        raise SystemExit("mosquitto is not installed here")
    lines = (f"listener {PORT} {EDGE_ADDRESS}", "allow_anonymous true", "set_tcp_nodelay true")
    _CONFIGURATION.write_text("\n".join(lines), encoding="utf-8")
    return [executable, "-c", str(_CONFIGURATION)]


@contextmanager
def _namespaces() -> Iterator[None]:
    try:
        for name, address in ((EDGE, EDGE_ADDRESS), (AGENT, AGENT_ADDRESS)):
            _ip("netns", "add", name)
            if name == AGENT:
                _ip("-n", EDGE, "link", "add", "edge0", "type", "veth", "peer", "name", "agent0")
                _ip("-n", EDGE, "link", "set", "agent0", "netns", AGENT)
                _ip("-n", EDGE, "addr", "add", f"{EDGE_ADDRESS}/30", "dev", "edge0")
                _ip("-n", AGENT, "addr", "add", f"{address}/30", "dev", "agent0")
        for name in (EDGE, AGENT):
            _ip("-n", name, "link", "set", _interface(name), "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in (EDGE, AGENT):
            subprocess.run(["ip", "netns", "delete", name], check=False)  # noqa: S607
        _CONFIGURATION.unlink(missing_ok=True)


@contextmanager
def _in_namespace(name: str, *command: str) -> Iterator[None]:
    process = subprocess.Popen(
        ["ip", "netns", "exec", name, *command],  # noqa: S607
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _shape(name: str, rate_mbit: float) -> None:
    """Put a token bucket on what leaves a namespace, of ten milliseconds or a few packets.

    On a busy machine a smaller one runs dry of time, not of tokens, and the link itself is slower.
    """
    interface = _interface(name)
    burst_bytes = max(3_200, int(rate_mbit * 1e6 / 8 * 0.010))
    _tc(name, "del", "dev", interface, "root", check=False)
    _tc(name, "add", "dev", interface, "root", "tbf", "rate", f"{rate_mbit}mbit", "burst",
        f"{burst_bytes}", "latency", "400ms")  # fmt: skip


def _interface(name: str) -> str:
    return "edge0" if name == EDGE else "agent0"


def _tc(name: str, *arguments: str, check: bool = True) -> None:
    command = ["ip", "netns", "exec", name, "tc", "qdisc", *arguments]
    subprocess.run(command, check=check, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)  # noqa: S607


if __name__ == "__main__":
    sys.exit(main())
