"""The tests themselves: who shares them among processes has to find the same in each."""

import os
import subprocess
import sys

import pytest

from tests.root import ROOT


def test_every_process_collects_the_same_tests(request: pytest.FixtureRequest) -> None:
    """Names of tests hang on no clock, no order of a set and no place in memory."""
    files = sorted({str(item.path) for item in request.session.items})
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "--override-ini=addopts=", "-q", *files],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert collected.returncode == 0, collected.stdout + collected.stderr
    here = {item.nodeid for item in request.session.items}
    assert here - set(collected.stdout.splitlines()) == set()
