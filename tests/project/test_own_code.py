"""What somebody else names runs only where this machine's user allowed it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.engines.open import open_engine
from edge_coordinator.__main__ import main
from runtime.datasets.sources import load_source
from runtime.errors import SettingsError
from runtime.plugins import AllowedCode
from tests.turn import ASSIGNMENT

NETS = """
from os import system
from torch import nn

def build(command: str = ""):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "brought_nets.py").write_text(NETS, encoding="utf-8")
    yield tmp_path
    sys.modules.pop("brought_nets", None)


@pytest.mark.parametrize(
    ("names", "reference"),
    [
        ((), "os:system"),
        ((), "brought_nets:build"),
        (("brought",), "brought_nets:build"),
        (("brought_nets.inner",), "brought_nets:build"),
        (("brought_nets:other",), "brought_nets:build"),
        (("brought_nets",), "brought_nets:system"),  # It uses os.system; that is not to lend it.
        (("brought_nets",), "brought_nets.inner:build"),  # It does not exist.
    ],
)
def test_code_that_nobody_allowed_is_refused_by_its_name(
    names: tuple[str, ...], reference: str
) -> None:
    with pytest.raises(SettingsError, match=reference.split(":", maxsplit=1)[0]):
        AllowedCode(names).check(reference, what="the network", to_allow="add")


def test_refused_code_is_not_even_imported() -> None:
    with pytest.raises(SettingsError, match="add --allow-code brought_nets:build"):
        AllowedCode().check("brought_nets:build", what="the network", to_allow="add")
    assert "brought_nets" not in sys.modules


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def f(:", r"cannot import broken: invalid syntax .broken\.py, line 1"),
        ("1 / 0", r"cannot import broken: ZeroDivisionError.*broken\.py, line 1"),
        ("import sys\nsys.exit(4)", r"cannot import broken: SystemExit: 4 .*line 2"),
        ("def f():\n  {}['k']", r"broken:f cannot be built .* KeyError: 'k' .*broken\.py, line 2"),
        ("def f():\n  return [[1, 2], [3]], [0, 1]", "broken:f returned what is no array of num"),
    ],
)
def test_code_of_ones_own_that_raises_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: str
) -> None:
    (tmp_path / "broken.py").write_text(body)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    with pytest.raises(SettingsError, match=words):
        load_source("broken:f", base_dir=tmp_path)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["brought_nets", "brought_nets:build"])
def test_allowed_code_is_let_through(name: str) -> None:
    AllowedCode((name,)).check("brought_nets:build", what="the network", to_allow="add")
    AllowedCode((name,)).check("lenet", what="the network", to_allow="add")


@pytest.mark.parametrize("changes", [{"network": "os:system"}, {"loss": "os:system"}])
def test_an_assignment_that_names_code_is_refused_and_nothing_runs(
    folder: Path, changes: dict[str, object]
) -> None:
    options = {"command": "touch ran"} if "network" in changes else {}
    job = ASSIGNMENT.model_copy(update={**changes, "options": options})
    with pytest.raises(SettingsError, match="'os:system' is code, which nobody allowed"):
        open_engine("torch", job, sample_shape=(1, 28, 28))
    assert not (folder / "ran").exists()


@pytest.mark.torch
def test_a_runs_directory_brings_no_code_that_the_command_does_not_allow(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--devices", "2", "--rounds", "1", "--plan", "by_hand", "--cut", "0"]
    assert main(["simulate", "--model", "brought_nets:build", *words]) == 0
    (run,) = (folder / "runs").iterdir()
    go_on = ["simulate", "--resume", str(run), "--rounds", "2"]
    assert main(go_on) == 1
    assert "--allow-code brought_nets:build" in capsys.readouterr().err
    assert main([*go_on, "--allow-code", "brought_nets"]) == 0
