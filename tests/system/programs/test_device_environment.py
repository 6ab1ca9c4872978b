"""A device without torch: what it installs, and that it trains with that."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import numpy as np
import pytest

from edge_coordinator.local.broker import local_broker
from runtime.datasets.sources import load_source
from tests.outside.device_environment import (
    LARGE,
    build_device_environment,
    device_variables,
    installed_bytes,
    lacks,
)
from tests.root import ROOT

MAX_INSTALLED_BYTES, MAX_BEYOND_BYTES = 150e6, 60e6
MAX_RESIDENT_MB = 110


@pytest.mark.installs
@pytest.mark.timeout(600)
async def test_the_device_dependencies_alone_are_small_and_train(tmp_path: Path) -> None:
    python = await asyncio.to_thread(build_device_environment, tmp_path)
    assert lacks(python, "torch")
    assert lacks(python, "onnx")
    installed = installed_bytes(tmp_path)
    large = sum(size for name, size in installed.items() if name in LARGE)
    assert sum(installed.values()) <= MAX_INSTALLED_BYTES
    assert sum(installed.values()) - large <= MAX_BEYOND_BYTES
    assert not lacks(
        python, "device_agent.engines.onnx_engine, device_agent.host"
    )  # Compiles, which would count as memory.
    data = load_source("digits", base_dir=tmp_path).train
    np.savez(tmp_path / "own.npz", x=data.x[:300], y=data.y[:300])
    await _train(python, tmp_path)  # Compiles what it imports, which would count as memory.
    said = await _train(python, tmp_path)
    peak_mb = re.findall(r"peak memory of this process (\d+) MB", said)
    assert peak_mb, said
    assert int(peak_mb[-1]) <= MAX_RESIDENT_MB


async def _train(python: Path, folder: Path) -> str:
    """Train some rounds with one agent of that environment; what the agent said."""
    async with local_broker("auto", None) as broker:
        agent = await asyncio.create_subprocess_exec(
            python, "-m", "device_agent", "--broker", broker.url, "--id", "pi",
            "--data", "npz:own.npz", cwd=folder, env=device_variables(), stdout=PIPE, stderr=STDOUT,
        )  # fmt: skip
        coordinator = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edge_coordinator", "coordinator", "--broker", broker.url,
            "--devices", "1", "--plan", "by_hand", "--rounds", "10",
            cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=PIPE, stderr=STDOUT,
        )  # fmt: skip
        output, _ = await coordinator.communicate()
        assert coordinator.returncode == 0, output.decode()
        agent.terminate()
        said, _ = await agent.communicate()
    return said.decode()
