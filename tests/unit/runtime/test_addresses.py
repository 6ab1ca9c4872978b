"""Paths as people write them: a home where there is one, and never an error."""

from pathlib import Path

import pytest

from runtime.addresses import own_path
from runtime.scenarios.files import ScenarioError, load_scenario


def test_a_path_begins_at_its_folder_at_the_root_or_at_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert own_path("runs/a", base_dir=tmp_path) == tmp_path / "runs" / "a"
    assert own_path(Path("/data"), base_dir=tmp_path) == Path("/data")
    assert own_path("~/x.toml", base_dir=tmp_path) == Path("/home/me/x.toml")
    assert (
        own_path("~nobody_of_this_name/x", base_dir=tmp_path) == tmp_path / "~nobody_of_this_name/x"
    )


def test_a_file_whose_name_begins_like_a_home_is_one_that_is_there_or_not(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"~copy_of_mine.toml cannot be read: No such file"):
        load_scenario("~copy_of_mine.toml", base_dir=tmp_path)
    deep = "[" * 100_000 + "]" * 100_000
    (tmp_path / "deep.json").write_text(deep, encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"deep.json is not json"):
        load_scenario("deep.json", base_dir=tmp_path)
