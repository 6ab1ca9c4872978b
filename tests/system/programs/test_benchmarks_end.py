"""A benchmark that is interrupted ends what it has started, and says so."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.root import ROOT

BENCHMARK = """
import asyncio, signal, sys
from pathlib import Path
from benchmarks.programs import Program, run_to_end

async def wait():
    program = await Program.start(sys.executable, "-c", "import time; time.sleep(600)", cwd=Path())
    print(program.process.pid, flush=True)
    await program.end()

signal.signal(signal.SIGINT, signal.default_int_handler)  # Whoever runs this may ignore it.
run_to_end(wait())
"""


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "told to end")],
)
def test_a_benchmark_that_is_ended_leaves_no_program_behind(
    number: signal.Signals, code: int, said: str
) -> None:
    command = [sys.executable, "-c", BENCHMARK]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as benchmark:
        assert benchmark.stdout is not None
        started = int(benchmark.stdout.readline())
        benchmark.send_signal(number)
        rest, _ = benchmark.communicate(timeout=30)
    assert rest == f"{said}: what was started has been ended\n"
    assert benchmark.returncode == code
    end_s = time.monotonic() + 10
    while psutil.pid_exists(started) and time.monotonic() < end_s:
        time.sleep(0.01)
    assert not psutil.pid_exists(started)
