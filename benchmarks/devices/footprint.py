"""What an agent takes of a device: disk, memory, and time until it is there; beside torch's.

Builds an environment with the device's dependencies alone (pip, from this source tree), and has
an agent in it train LeNet cut at pool1 with a real broker and coordinator. Then the same with the
torch engine of the environment that runs this. Sizes are without .pyc files, which pip can leave
out (`--no-compile`) and Python writes when first it runs.

    python -m benchmarks.devices.footprint
"""

import argparse
import asyncio
import os
import re
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, STDOUT
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement

from edge_coordinator.local.broker import local_broker
from runtime.bus.bus import Delivery
from runtime.bus.mqtt_bus import MqttBus
from runtime.datasets.sources import load_source
from runtime.distribution import DISTRIBUTION
from runtime.wire.topics import Topics
from tests.outside.device_environment import (
    LARGE,
    SOURCES,
    build_device_environment,
    bytes_of,
    device_variables,
    files_of,
    installed_bytes,
    lacks,
)
from tests.root import ROOT

NUM_SAMPLES, NUM_ROUNDS = 300, 10


@dataclass(frozen=True)
class Footprint:
    """What one agent took."""

    first_start_s: float
    start_s: float
    peak_mb: float
    resident_mb: float


def main() -> None:
    """Build, measure and print."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    with tempfile.TemporaryDirectory(prefix="cpsl-footprint-") as name:
        folder = Path(name)
        python = build_device_environment(folder)
        assert all(lacks(python, module) for module in ("torch", "onnx"))
        installed = installed_bytes(folder)
        large = sum(size for name, size in installed.items() if name in LARGE)
        total = sum(installed.values())
        data = load_source("digits", base_dir=ROOT).train
        np.savez(folder / "own.npz", x=data.x[:NUM_SAMPLES], y=data.y[:NUM_SAMPLES])
        onnx = asyncio.run(_measure(folder, python, "onnxruntime"))
        torch = asyncio.run(_measure(folder, Path(sys.executable), "torch"))
    _show(
        "installed, MB",
        total / 1e6,
        _closure_bytes(Requirement(f"{DISTRIBUTION}[torch]")) / 1e6,
    )
    _show("  beyond numpy and onnxruntime, MB", (total - large) / 1e6, None)
    _show("start to profile, first, s", onnx.first_start_s, torch.first_start_s)
    _show("start to profile, again, s", onnx.start_s, torch.start_s)
    _show("peak resident, training, MB", onnx.peak_mb, torch.peak_mb)
    _show("resident at the end, MB", onnx.resident_mb, torch.resident_mb)


def _show(what: str, onnx: float, torch: float | None) -> None:
    beside = "" if torch is None else f"   torch {torch:8.1f}"
    print(f"{what:36} onnxruntime {onnx:8.1f}{beside}", flush=True)


# Disk


def _closure_bytes(wanted: Requirement) -> int:
    """Bytes of a distribution and of all that it requires, as far as it is installed here."""
    sizes: dict[str, int] = {DISTRIBUTION: sum(bytes_of(files_of(ROOT / name)) for name in SOURCES)}
    waiting, seen = [wanted], set()
    while waiting:
        requirement = waiting.pop()
        try:
            found = distribution(requirement.name)
        except PackageNotFoundError:
            continue  # Of another platform.
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        if name not in sizes:
            paths = [Path(str(file.locate())) for file in found.files or ()]
            sizes[name] = bytes_of(path for path in paths if path.is_file())
        for extra in ("", *requirement.extras):
            for text in found.requires or () if (name, extra) not in seen else ():
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)
            seen.add((name, extra))
    return sum(sizes.values())


# A run


async def _measure(folder: Path, python: Path, engine: str) -> Footprint:
    """Start an agent twice; the second time, train."""
    async with local_broker("auto", None) as broker:
        first_s, agent = await _start_agent(folder, python, engine, broker.url)
        agent.terminate()
        await agent.communicate()
        start_s, agent = await _start_agent(folder, python, engine, broker.url)
        coordinator = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edge_coordinator", "coordinator", "--broker", broker.url,
            "--devices", "1", "--plan", "by_hand", "--rounds", str(NUM_ROUNDS),
            cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=PIPE, stderr=STDOUT,
        )  # fmt: skip
        output, _ = await coordinator.communicate()
        assert coordinator.returncode == 0, output.decode()
        agent.terminate()
        said, _ = await agent.communicate()
    peaks = re.findall(r"peak memory of this process (\d+) MB, now (\d+) MB", said.decode())
    assert peaks, said.decode()
    return Footprint(first_s, start_s, float(peaks[-1][0]), float(peaks[-1][1]))


async def _start_agent(
    folder: Path, python: Path, engine: str, url: str
) -> tuple[float, asyncio.subprocess.Process]:
    """Start an agent; the seconds until its profile was there."""
    device = f"pi-{time.monotonic_ns()}"
    topic = Topics("default").profile(device)
    environment = device_variables()
    if engine == "torch":
        environment["PYTHONPATH"] = str(ROOT)
    async with await MqttBus.connect(url, client_id="watch", wait=False) as bus:
        await bus.subscribe(topic)
        start_s = time.perf_counter()
        agent = await asyncio.create_subprocess_exec(
            python, "-m", "device_agent", "--broker", url, "--id", device, "--engine", engine,
            "--data", "npz:own.npz", cwd=folder, env=environment, stdout=PIPE, stderr=STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(120):
            async for event in bus.events():
                if isinstance(event, Delivery) and event.topic == topic:
                    return time.perf_counter() - start_s, agent
    raise AssertionError(topic)


if __name__ == "__main__":
    main()
