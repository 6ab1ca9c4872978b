"""Exit codes, log lines and signs of life, as docs/operating.md has them."""

import asyncio
import json
import logging
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from device_agent.__main__ import main as agent
from edge_coordinator.__main__ import main as cpsl
from runtime.errors import StorageError
from runtime.service.exit_codes import ExitCode
from runtime.service.health import health_told, is_alive
from runtime.service.logs import JsonFormatter
from tests.root import ROOT

PAGE = ROOT / "docs" / "operating.md"


def test_the_page_has_every_code() -> None:
    codes = re.findall(r"^\| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.M)
    assert [int(code) for code in codes] == list(ExitCode)


def test_a_command_that_is_done_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert cpsl(["schema", "status", "--log-format", "json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["title"] == "DeviceStatus"


@pytest.mark.torch
def test_what_cannot_be_is_one_sentence_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert cpsl(["coordinator"]) == ExitCode.FAILED
    assert agent(["--broker", "mqtt://h", "--id", "a b", "--data", "digits"]) == ExitCode.FAILED
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("cpsl coordinator: which broker?")
    assert second.startswith("cpsl-agent: device id 'a b'")


def test_a_command_line_that_is_not_understood_is_2() -> None:
    for program, words in ((cpsl, ["locla"]), (agent, ["--config", "/there/is/none.toml"])):
        with pytest.raises(SystemExit) as caught:
            program(words)
        assert caught.value.code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("program", "words", "code"),
    [
        ("edge_coordinator", ["coordinator", "--model", "mlp"], ExitCode.TERMINATED),
        ("device_agent", ["--id", "a", "--data", "digits"], ExitCode.DONE),
    ],
)
def test_a_program_that_is_told_to_end_says_so(
    program: str, words: list[str], code: int, tmp_path: Path
) -> None:
    """Both wait for a broker that never comes, and say so as JSON."""
    more = ["--wait", "--broker", "mqtt://127.0.0.1:9", "--log-format", "json"]
    process = subprocess.Popen(
        [sys.executable, "-m", program, *words, *more],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    try:
        for line in iter(process.stdout.readline, ""):
            lines.append(json.loads(line))
            if "cannot reach the broker" in line:
                process.terminate()
    finally:
        process.stdout.close()
        process.terminate()
    assert process.wait() == code
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)


def test_a_coordinator_that_is_told_to_end_while_it_prepares_a_job_ends_at_once_and_in_order(
    tmp_path: Path,
) -> None:
    """The system ends it by a signal otherwise, or, if it is a container's first process, never."""
    (tmp_path / "slow.py").write_text(
        "import time\ndef make():\n    print('preparing', flush=True)\n    time.sleep(60)\n"
    )
    words = ["coordinator", "--model", "slow:make", "--broker", "mqtt://127.0.0.1:9"]
    with subprocess.Popen(
        [sys.executable, "-m", "edge_coordinator", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "preparing\n"
        process.terminate()
        assert process.stdout.read() == ""
    assert process.returncode == ExitCode.TERMINATED


def test_a_trace_is_in_the_object_of_its_line() -> None:
    try:
        int("no")
    except ValueError:
        record = logging.LogRecord("a.b", logging.ERROR, "", 0, "%d %s", (1, "x"), sys.exc_info())
    fields = json.loads(JsonFormatter().format(record))
    assert (fields["level"], fields["logger"], fields["message"]) == ("error", "a.b", "1 x")
    assert "ValueError: " in fields["trace"]


async def test_a_service_manager_hears_that_it_is_ready_alive_and_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "health"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)  # noqa: FBT003
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        loop = asyncio.get_running_loop()
        async with health_told(file, lambda: "connected"):
            assert await loop.sock_recv(manager, 99) == b"READY=1"
            assert await loop.sock_recv(manager, 99) == b"WATCHDOG=1\nSTATUS=connected"
            assert json.loads(file.read_text())["status"] == "connected"
            assert is_alive(file)
            file.write_text(json.dumps({"status": "connected", "at_unix_s": 0.0}))
            assert not is_alive(file)
        assert await loop.sock_recv(manager, 99) == b"STOPPING=1"
    assert not file.exists()


async def test_a_health_file_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        async with health_told(tmp_path / "none" / "health", lambda: ""):
            pass
