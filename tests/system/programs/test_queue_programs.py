"""A queue on a fleet's broker, by real programs: an operator asks, a killed server goes on."""

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from edge_coordinator.local.broker import find_mosquitto
from tests.outside.ports import free_port

pytest.importorskip("cryptography")
if find_mosquitto() is None:
    pytest.skip("mosquitto is not installed here", allow_module_level=True)

from edge_coordinator.fleet.fleet import FleetFolder
from edge_coordinator.fleet.record import FleetRecord
from tests.system.programs.test_fleet import broker

CPSL = (sys.executable, "-m", "edge_coordinator")
JOB = """[model]
name = "mlp"
[data]
source = "digits"
[devices]
count = 1
[plan]
mode = "by_hand"
cut = "fc1"
clusters = 1
[training]
rounds = 100000
"""


async def _start(*command: str, cwd: Path) -> Process:
    return await asyncio.create_subprocess_exec(*command, cwd=cwd, stdout=PIPE, stderr=STDOUT)


@asynccontextmanager
async def _running(*command: str, cwd: Path) -> AsyncIterator[Process]:
    """Run a program for the length of the block, if it does not end before."""
    process = await _start(*command, cwd=cwd)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def _ask(*words: str, cwd: Path, code: int = 0) -> str:
    """Run a command of cpsl as the operator, from her own bundle alone."""
    process = await _start(*CPSL, *words, "--fleet", "anna", cwd=cwd)
    said, _ = await process.communicate()
    assert process.returncode == code, said.decode()
    return said.decode()


async def _until(words: str, process: Process) -> None:
    assert process.stdout is not None
    seen = []
    async for line in process.stdout:
        seen.append(line.decode())
        if words in seen[-1]:
            return
    raise AssertionError("".join(seen))


async def _queue(cwd: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await _ask("runs", "--queue", "--json", cwd=cwd))
    return found


async def _until_trained(output: Path, num_rounds: int) -> Path:
    """Wait until the one run below has written down so many rounds; its directory."""
    while (run := _trained(output, num_rounds)) is None:  # noqa: ASYNC110 - by another process
        await asyncio.sleep(0.1)
    return run


def _trained(output: Path, num_rounds: int) -> Path | None:
    runs = [run for run in output.glob("*-cpsl-mlp") if (run / "checkpoint.safetensors").exists()]
    return next((run for run in runs if len(_rounds_of(run)) >= num_rounds), None)


def _rounds_of(run: Path) -> list[int]:
    text = (run / "rounds.jsonl").read_text(encoding="utf-8")
    return [json.loads(line)["round"] for line in text.splitlines() if line.endswith("}")]


async def _asks_a_run_that_goes_on(cwd: Path) -> None:
    """Ask a run and its device all that an operator may, and what she may not."""
    assert "pi-0: room=3" in await _ask("devices", "tag", "pi-0", "room=3", cwd=cwd)
    assert "works with log_level = debug" in await _ask(
        *("devices", "set", "pi-0", "log-level=debug"), cwd=cwd
    )
    assert re.search(r"pauses after round \d+", await _ask("pause", cwd=cwd))
    assert "waiting: paused" in await _ask("monitor", "--once", cwd=cwd)
    assert re.search(r"goes on with round \d+", await _ask("continue", cwd=cwd))
    assert "room=3" in await _ask("devices", "list", cwd=cwd)
    with_hers = ("--set", "broker.cafile=anna/authority.pem",
                 "--set", "broker.certfile=anna/certificate.pem",
                 "--set", "broker.keyfile=anna/key.pem")  # fmt: skip
    url, site = json.loads((cwd / "anna" / "site.json").read_text()).values()
    process = await _start(
        *CPSL, "coordinator", "--broker", url, "--site", site, *with_hers, cwd=cwd
    )
    said, _ = await process.communicate()
    assert "the broker refused it: not authorized" in said.decode()
    assert process.returncode == 1


@pytest.mark.examples
@pytest.mark.timeout(240)
async def test_an_operator_asks_by_her_bundle_alone_and_a_server_that_was_killed_goes_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "fleet"
    record = FleetRecord(hosts=("localhost",), port=free_port(), site="farm", days=30, seen_at=path)
    fleet = FleetFolder.make(path, record)
    fleet.add("pi-0", {"data": "digits", "engine": "torch", "wait": True})
    fleet.add_operator("anna").rename(tmp_path / "anna")
    (tmp_path / "job.toml").write_text(JOB, encoding="utf-8")
    serve = (*CPSL, "coordinator", "--serve", "--config", str(path / "coordinator" / "job.toml"))
    agent_config = str(path / "devices" / "pi-0" / "agent.toml")
    agent = (sys.executable, "-m", "device_agent", "--config", agent_config)
    async with broker(fleet), _running(*agent, cwd=tmp_path):
        async with _running(*serve, cwd=tmp_path) as server:
            await _until("serving the queue", server)
            assert "job 1" in await _ask("submit", "job.toml", cwd=tmp_path)
            run = await _until_trained(tmp_path / "runs", 1)
            (child,) = psutil.Process(server.pid).children()
            server.kill()
            await asyncio.to_thread(child.wait)  # It ends with whoever started it.
        left = await _queue(tmp_path)
        assert (left["state"], [job["state"] for job in left["jobs"]]) == ("offline", ["running"])
        num_done = len(_rounds_of(run))
        async with _running(*serve, cwd=tmp_path) as server:
            await _until("job 1 (job) begins", server)
            await _until_trained(tmp_path / "runs", num_done + 1)
            await _asks_a_run_that_goes_on(tmp_path)
            assert re.search(r"stops after round \d+", await _ask("stop", cwd=tmp_path))
            await _until("job 1 (job) is done", server)
            assert [job["state"] for job in (await _queue(tmp_path))["jobs"]] == ["done"]
        assert _rounds_of(run) == list(range(1, len(_rounds_of(run)) + 1))
