"""A program as a process: the memory that it keeps."""

import subprocess
import sys

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


def test_what_a_step_of_a_large_cluster_takes_is_mapped_in_once() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    kept, first, *others = map(int, done.stdout.split())
    if not kept:
        pytest.skip("another C library")
    assert max(others) < first / 10
