"""Where next to nothing can be written to, a run still has a place for its temporary files."""

import os
import tempfile
from pathlib import Path

import pytest

from edge_coordinator.run.temporary import temporary_files_near
from runtime.errors import SettingsError


@pytest.fixture
def _read_only_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No folder for temporary files, and a home that is not there."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "no")])
    monkeypatch.setenv("HOME", str(tmp_path / "no"))
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)


@pytest.mark.usefixtures("_read_only_machine")
def test_temporary_files_and_those_of_plots_lie_near_the_output_and_go_with_the_run(
    tmp_path: Path,
) -> None:
    output = tmp_path / "runs"
    with temporary_files_near(output):
        for place in (os.environ["TMPDIR"], os.environ["MPLCONFIGDIR"], tempfile.gettempdir()):
            assert Path(place).is_relative_to(output)
            assert Path(place).is_dir()
    assert list(output.iterdir()) == []
    assert not {"TMPDIR", "MPLCONFIGDIR"} & os.environ.keys()
    with pytest.raises(FileNotFoundError):
        tempfile.gettempdir()


@pytest.mark.usefixtures("_read_only_machine")
def test_an_output_that_cannot_be_written_either_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(SettingsError, match=r"output .*file/runs cannot be written: Not a dir"),
        temporary_files_near(tmp_path / "file" / "runs"),
    ):
        pass
