"""The page beside a run, as its users start both."""

import asyncio
import json
import signal
import sys
import urllib.request
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path
from typing import Any

import psutil

CPSL = (sys.executable, "-m", "edge_coordinator")
RUN = (*CPSL, "local", "--devices", "2", "--web", "--web-port", "0", "--no-open")


async def _start(*arguments: str, cwd: Path) -> Process:
    return await asyncio.create_subprocess_exec(
        *arguments, cwd=cwd, stdout=PIPE, stderr=STDOUT, start_new_session=True
    )


async def _until(process: Process, words: str) -> str:
    """Read a program's output up to a line with these words."""
    assert process.stdout is not None
    while words not in (line := (await process.stdout.readline()).decode()):
        assert line, f"the program ended before it said {words!r}"
    return line


def _told(url: str, *, num_rounds: int) -> dict[str, Any]:
    """Watch until the history, which may be a second old, has so many rounds."""
    parts: dict[str, Any] = {}
    with urllib.request.urlopen(f"{url}events", timeout=30) as events:  # noqa: S310 - ours
        while len((parts.get("history") or {"round": ()})["round"]) < num_rounds:
            line = events.readline()
            parts |= json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data") else {}
    return parts


def _fetched(url: str) -> Any:  # noqa: ANN401 - whatever JSON can say
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - ours
        return json.loads(answer.read())


async def test_a_local_run_says_where_its_page_is_and_its_record_opens_in_the_same(
    tmp_path: Path,
) -> None:
    run = await _start(*RUN, "--rounds", "10000", cwd=tmp_path)
    url = (await _until(run, "page: ")).removeprefix("page: ").strip()
    await _until(run, "round 4,")
    site = await asyncio.to_thread(_told, url, num_rounds=4)
    assert site["history"]["round"][:4] == [1, 2, 3, 4]  # Those before one came, too.
    assert site["history"]["num_rounds"] == 10000
    assert site["plan"]["local_epochs"] >= 1
    assert {"device/dev-0", "device/dev-1"} <= site.keys()
    started = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(signal.SIGTERM)
    output, _ = await run.communicate()
    assert run.returncode == 143, output.decode()
    _gone, alive = psutil.wait_procs(started, timeout=10)
    assert not alive

    (folder,) = (tmp_path / "runs").iterdir()
    show = await _start(*CPSL, "show", str(folder), "--port", "0", "--no-open", cwd=tmp_path)
    url = (await _until(show, "page: ")).removeprefix("page: ").strip()
    (shown,) = await asyncio.to_thread(_fetched, f"{url}runs")
    assert shown["name"] == folder.name
    assert shown["history"]["round"][:4] == [1, 2, 3, 4]
    second = await asyncio.to_thread(_fetched, f"{url}runs/0/rounds/2")
    assert second["round"]["round"] == second["plan"]["round"] == 2
    show.send_signal(signal.SIGTERM)
    output, _ = await show.communicate()
    assert (show.returncode, output.decode()) == (0, "")


async def test_the_page_of_a_run_that_is_killed_ends_with_it(tmp_path: Path) -> None:
    run = await _start(*RUN, "--rounds", "10000", cwd=tmp_path)
    await _until(run, "page: ")
    started = psutil.Process(run.pid).children(recursive=True)
    assert any("monitor" in process.cmdline() for process in started)
    run.kill()
    await run.wait()
    _gone, alive = psutil.wait_procs(started, timeout=30)
    assert not alive
