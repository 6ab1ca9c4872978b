"""A program as a process: the memory that it keeps, and what it prints to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, threading
import numpy as np
from runtime.service.process import keep_freed_memory
kept, faults = keep_freed_memory(of_clusters=True), []
def compute():
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.full(10_000_000, 1.0)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=compute)
thread.start()
thread.join()
print(int(kept), *faults)
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("edge_coordinator schema \xe4 >&-", 1, "cpsl schema: no schema named '\\xe4'"),
        (
            "edge_coordinator schema status >/dev/full",
            1,
            "cpsl schema: cannot write: No space left",
        ),
        ("device_agent --help", 0, ""),
    ],
)
def test_what_cannot_be_printed_ends_no_program_in_a_traceback(
    words: str, code: int, said: str
) -> None:
    command = ["sh", "-c", f'exec "$0" -m {words}', sys.executable]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == code
    assert done.stderr.decode().startswith(said)
    assert "Traceback" not in done.stderr.decode()


def test_what_a_step_of_a_large_cluster_takes_is_mapped_in_once() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    kept, first, *others = map(int, done.stdout.split())
    if not kept:
        pytest.skip("another C library")
    assert max(others) < first / 10
