"""Limits of a process."""

import subprocess
import sys

_SCRIPT = """
import resource
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
from runtime.service.descriptors import MANY, allow_many
allow_many()
soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
assert soft == (MANY if hard == resource.RLIM_INFINITY else min(MANY, hard)), soft
"""


def test_a_process_may_open_as_many_files_as_its_system_allows_it() -> None:
    subprocess.run([sys.executable, "-c", _SCRIPT], check=True)
