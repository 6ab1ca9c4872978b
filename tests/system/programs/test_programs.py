"""The two programs as their users start them: real processes, a real broker."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import pytest
from safetensors.numpy import load_file

from edge_coordinator.__main__ import main
from edge_coordinator.job.file import load_job
from edge_coordinator.local.agents import host_groups
from edge_coordinator.local.broker import find_mosquitto, local_broker
from runtime.datasets.sources import load_source

CPSL = (sys.executable, "-m", "edge_coordinator")
AGENT = (sys.executable, "-m", "device_agent")


async def _start(*arguments: str, cwd: Path) -> Process:
    return await asyncio.create_subprocess_exec(
        *arguments,
        cwd=cwd,
        stdout=PIPE,
        stderr=STDOUT,
        start_new_session=True,
        preexec_fn=_hear_ctrl_c,
    )


def _hear_ctrl_c() -> None:
    """Undo what a shell does to a job in the background, and so to the tests in it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def _output(process: Process) -> str:
    output, _ = await process.communicate()
    return output.decode()


async def _until(process: Process, words: str) -> None:
    """Read a program's output up to a line with these words."""
    assert process.stdout is not None
    while words not in (line := (await process.stdout.readline()).decode()):
        assert line, f"the program ended before it said {words!r}"


@pytest.mark.parametrize("broker", ["mosquitto", "amqtt"])
async def test_a_local_run_leaves_its_settings_its_rounds_its_model_and_its_curves(
    broker: str, tmp_path: Path
) -> None:
    if broker == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed on this machine")
    has_otel = find_spec("opentelemetry") is not None
    process = await _start(
        *(*CPSL, "local", "--broker", broker, "--rounds", "2", "--devices", "3"),
        *(("--spans", "spans.jsonl") if has_otel else ()),
        cwd=tmp_path,
    )
    output = await _output(process)
    assert process.returncode == 0, output
    assert f"broker: {broker}" in output
    (run,) = (tmp_path / "runs").iterdir()
    rounds = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    assert [each["round"] for each in rounds] == [1, 2]
    assert (run / "curves.png").stat().st_size > 10_000
    assert "rounds = 2" in (run / "job.toml").read_text()
    _onnx_holds_the_weights(run)
    if has_otel:
        _coordinator_and_agents_wrote_a_tree_a_round(tmp_path / "spans.jsonl")


def _coordinator_and_agents_wrote_a_tree_a_round(path: Path) -> None:
    requests = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    told = [each for request in requests for each in request["resourceSpans"]]
    spans = [span for each in told for scope in each["scopeSpans"] for span in scope["spans"]]
    programs = {a["value"]["stringValue"] for each in told for a in each["resource"]["attributes"]}
    assert {"cpsl", "cpsl-agent"} <= programs
    ids = {span["spanId"] for span in spans}
    roots = [span for span in spans if "parentSpanId" not in span]
    assert [span["name"] for span in roots] == ["round"] * 2
    assert {span["traceId"] for span in spans} == {span["traceId"] for span in roots}
    assert all(span.get("parentSpanId", span["spanId"]) in ids for span in spans)
    assert {"turn", "step", "server", "forward", "backward"} <= {span["name"] for span in spans}


def _onnx_holds_the_weights(run: Path) -> None:
    weights = load_file(run / "model.safetensors")
    session = onnxruntime.InferenceSession(run / "model.onnx")
    (outputs,) = session.run(None, {"input": np.zeros((5, 1, 28, 28), np.float32)})
    assert outputs.shape == (5, 10)
    assert weights["fc3.bias"].shape == (10,)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_being_told_to_end_ends_everything_and_says_where_the_results_are(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    process = await _start(
        *CPSL, "local", "--rounds", "10000", "--plan", "by_hand", "--set", "devices.processes=1",
        cwd=tmp_path,
    )  # fmt: skip
    await _until(process, "round 2,")
    started = psutil.Process(process.pid).children(recursive=True)
    assert len(started) >= 2
    process.send_signal(number)
    output = await _output(process)
    assert process.returncode == code
    assert "stopped after" in output
    assert "results in" in output
    _gone, alive = psutil.wait_procs(started, timeout=10)
    assert not alive
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "model.safetensors").exists()


async def test_agents_and_coordinator_meet_on_a_broker_in_any_order(tmp_path: Path) -> None:
    async with local_broker("auto", None) as broker:
        common = ("--broker", broker.url, "--data", "digits")
        early = await _start(*AGENT, *common, "--id", "pi-1", "--shard", "0/2", cwd=tmp_path)
        await _until(early, "waiting for a coordinator")
        taken = await _start(*AGENT, *common, "--id", "pi-1", cwd=tmp_path)
        coordinator = await _start(
            *CPSL, "coordinator", "--broker", broker.url, "--devices", "2", "--rounds", "2",
            cwd=tmp_path,
        )  # fmt: skip
        await _until(coordinator, "1 of 2 devices are ready (pi-1)")
        late = await _start(*AGENT, *common, "--id", "pi-2", "--shard", "1/2", cwd=tmp_path)
        output = await _output(coordinator)
        assert coordinator.returncode == 0, output
        assert "device id 'pi-1'" in await _output(taken)
        assert taken.returncode == 1
        for agent in (early, late):
            agent.terminate()
            await _output(agent)
            assert agent.returncode == 0


WITHOUT_TORCH = (
    "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnx', 'onnxscript'))); "
    "from device_agent.__main__ import main; sys.exit(main())"
)


async def test_an_agent_without_torch_trains_over_a_broker(tmp_path: Path) -> None:
    source = load_source("digits", base_dir=tmp_path).train
    np.savez(tmp_path / "own.npz", x=source.x[:200], y=source.y[:200])
    async with local_broker("auto", None) as broker:
        agent = await _start(
            sys.executable, "-c", WITHOUT_TORCH, "--broker", broker.url, "--id", "pi-1",
            "--data", "npz:own.npz", "--engine", "onnxruntime", cwd=tmp_path,
        )  # fmt: skip
        coordinator = await _start(
            *CPSL, "coordinator", "--broker", broker.url, "--devices", "1", "--rounds", "3",
            "--plan", "by_hand", "--set", "devices.patience_s=20", cwd=tmp_path,
        )  # fmt: skip
        output = await _output(coordinator)
        assert coordinator.returncode == 0, output
        assert "exporting the layers up to pool1 for devices without torch" in output
        agent.terminate()
        said = await _output(agent)
        assert agent.returncode == 0, said
        assert said.count("got what it lacked of its side") == 1
        assert "peak memory of this process" in said


def test_local_devices_share_processes_by_engine() -> None:
    settings = load_job(None, {"devices.count": 5, "devices.engine": "mixed"})
    for processes, expected in ((1, [2, 3]), (2, [2, 3]), (4, [1, 1, 1, 2]), (9, [1] * 5)):
        devices = settings.devices.model_copy(update={"processes": processes})
        groups = host_groups(settings.model_copy(update={"devices": devices}))
        assert sorted(len(group.devices) for group in groups) == expected
        of_engine = {i: group.engine for group in groups for i in group.devices}
        assert [of_engine[i] for i in range(5)] == ["torch", "onnxruntime"] * 2 + ["torch"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("coordinator", "--broker", "mqtt://127.0.0.1:{port}"), "connection refused"),
        (("coordinator",), "which broker?"),
        (("local", "--model", "lenett"), "no model named 'lenett'"),
        (("local", "--cut", "pool9"), "no layer named 'pool9'"),
        (("local", "--cut", "77"), "a cut is a number from 0 to 12"),
        (("local", "--data", "mnist:nowhere"), "does not exist"),
        (("local", "--clusters", "7"), "7 clusters are more than 6 devices"),
        (("local", "--devices", "2000"), "would get no samples"),
        (("local", "--model", "resnet8", "--cut", "1"), "does not fit model resnet8"),
        (("local", "--rounds", "zero"), "training.rounds = 'zero'"),
        (("local", "--config", "no.toml"), "cannot read no.toml"),
        (("schema", "--write", "/dev/null/schemas"), "cannot write /dev/null/schemas"),
        (("schema", "plans", "--write", "schemas"), "no schema named 'plans'"),
    ],
)
def test_a_mistake_is_one_sentence_and_a_non_zero_exit(
    arguments: Sequence[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    port = _free_port()
    assert main([argument.format(port=port) for argument in arguments]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not list(tmp_path.glob("runs/*"))


def test_an_agent_starts_without_torch() -> None:
    program = "import sys; sys.modules['torch'] = None; import device_agent.__main__"
    subprocess.run([sys.executable, "-c", program], check=True)
