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


def _watched(url: str) -> dict[str, Any]:
    """Watch until the page's server ends; the last of each part."""
    parts: dict[str, Any] = {}
    with urllib.request.urlopen(f"{url}events", timeout=60) as events:  # noqa: S310 - ours
        for line in events:
            parts |= json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data") else {}
    return parts


def _fetched(url: str) -> Any:  # noqa: ANN401 - whatever JSON can say
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - ours
        return json.loads(answer.read())


async def test_a_local_run_is_watched_to_its_end_and_its_record_opens_in_the_same_page(
    tmp_path: Path,
) -> None:
    run = await _start(*RUN, "--rounds", "6", "--plan", "by_hand", cwd=tmp_path)
    url = (await _until(run, "page: ")).removeprefix("page: ").strip()
    started = psutil.Process(run.pid).children(recursive=True)
    site = await asyncio.to_thread(_watched, url)
    assert site["history"]["round"] == [1, 2, 3, 4, 5, 6]
    assert site["history"]["num_rounds"] == site["round"]["round"] == 6
    assert site["plan"]["local_epochs"] == 3
    assert site["site"]["coordinator"]["state"] == "offline"
    assert {"device/dev-0", "device/dev-1"} <= site.keys()
    output, _ = await run.communicate()
    assert run.returncode == 0, output.decode()
    assert "to look at it again: cpsl show runs/" in output.decode()
    _gone, alive = psutil.wait_procs(started, timeout=10)
    assert not alive

    (folder,) = (tmp_path / "runs").iterdir()
    show = await _start(*CPSL, "show", str(folder), "--port", "0", "--no-open", cwd=tmp_path)
    url = (await _until(show, "page: ")).removeprefix("page: ").strip()
    (shown,) = await asyncio.to_thread(_fetched, f"{url}runs")
    assert shown["name"] == folder.name
    assert shown["history"]["round"] == [1, 2, 3, 4, 5, 6]
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
