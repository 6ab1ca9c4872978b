"""Torch's own generator, asked by several threads."""

import subprocess
import sys

import pytest

# In a process of its own: threads that wait for each other in C take the whole process along.
ASKED_BY_THREADS = """
import gc, threading, torch
from runtime.seeding.torch_generator import forked_generator, generator_state, seed_generators

def ask():
    with forked_generator(0):
        seed_generators(1)
    for _ in range(2000):
        cycle = [torch.zeros(3)]
        cycle.append(cycle)  # Left to the garbage collection.
        generator_state()

gc.set_threshold(20)
threads = [threading.Thread(target=ask) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.torch
def test_threads_that_ask_torchs_generator_amid_garbage_do_not_wait_for_each_other_for_ever() -> (
    None
):
    subprocess.run([sys.executable, "-c", ASKED_BY_THREADS], check=True, timeout=60)
