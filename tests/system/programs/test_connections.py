"""What the programs connect to, and what they leave in a user's home."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LOCAL = (
    *(sys.executable, "-m", "edge_coordinator", "local", "--plan", "by_hand", "--engine", "mixed"),
    *("--devices", "2", "--clusters", "1", "--rounds", "2", "--local-epochs", "1"),
)


STRACE = shutil.which("strace") or ""


def _can_trace() -> bool:
    """Whether it is there, and allowed to (in some containers it is not)."""
    command = (STRACE, "-o", os.devnull, sys.executable, "-c", "")
    return (
        bool(STRACE) and subprocess.run(command, check=False, capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not _can_trace(), reason="strace is not installed, or not allowed here")
def test_nothing_that_is_started_speaks_to_anybody_but_its_broker(tmp_path: Path) -> None:
    trace, home = tmp_path / "trace", tmp_path / "home"
    home.mkdir()
    tracing = (STRACE, "-f", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmsg", "-o", trace)
    # As on a user's machine, where nothing has switched anything off.
    ours = ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    variables = {name: value for name, value in os.environ.items() if name not in ours}
    subprocess.run(
        (*tracing, *LOCAL),
        cwd=tmp_path,
        env=variables | {"HOME": str(home)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    called = re.findall(r'inet_(?:addr\(|pton\(AF_INET6, )"([^"]+)"', trace.read_text())
    assert called
    assert set(called) <= {"127.0.0.1", "::1"}
    left = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    assert not [path for path in left if "matplotlib" not in path.parts]
