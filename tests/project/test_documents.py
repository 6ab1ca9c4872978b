"""What the documents say is there: pages, files, commands with their flags, and pictures."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.command_line import build_inference_parser, build_profile_parser
from device_agent.command_line import build_parser as agent_parser
from docs.pictures.draw_architecture import PICTURE as ARCHITECTURE
from docs.pictures.draw_architecture import picture
from docs.pictures.draw_run import PICTURE as RUN
from docs.pictures.draw_run import picture as run_picture
from edge_coordinator.cli.flags import build_parser
from tests.root import ROOT
from tests.sites import make_plan, make_round

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")]
)


def test_the_picture_of_the_packages_is_that_of_the_code() -> None:
    assert ARCHITECTURE.read_text(encoding="utf-8") == picture(), (
        "redraw it: python -m docs.pictures.draw_architecture"
    )


def test_a_run_is_drawn_from_what_it_wrote_down() -> None:
    lines = [
        json.dumps(
            json.loads(make_round(number, test_accuracy=0.5).encode())
            | {"plan": json.loads(make_plan("ab", "cd").encode()), "clock": "wall"}
        )
        for number in (1, 2)
    ]
    drawn = run_picture(lines, num_done=1)
    assert "50.00%" in drawn
    assert "1/2" in drawn


@pytest.mark.parametrize("drawn", [ARCHITECTURE, RUN], ids=lambda path: path.stem)
def test_a_picture_loads_nothing_from_elsewhere(drawn: Path) -> None:
    text = drawn.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|@import|href", text)


def test_every_page_is_listed_once() -> None:
    index = ROOT / "docs" / "README.md"
    listed = re.findall(r"^\| \[[^\]]+\]\(([^)]+)\) \|", index.read_text(encoding="utf-8"), re.M)
    pages = {path for path in (ROOT / "docs").rglob("*.md") if path != index}
    assert sorted(index.parent / name for name in listed) == sorted(
        pages | {ROOT / "docs" / "job.toml"}
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            name, _, heading = target.partition("#")
            path = page.parent / name if name else page
            assert path.exists(), f"{page.name} points to {target}"
            assert not heading or heading in _headings(path), f"{page.name} points to {target}"


@pytest.mark.parametrize("name", ["architecture.md", "proofs.md"])
def test_files_that_a_page_names_are_there(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    named = re.findall(
        r"`((?:runtime|device_agent|edge_coordinator|tests|benchmarks)/[^`]*)`", text
    )
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_a_training_step_is_followed_through_at_most_26_files() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    step = text.partition("## The life of one training step")[2].partition("**In micro-batches**")[
        0
    ]
    named = set(re.findall(r"`([\w/]+\.py)`", step))
    assert "edge_coordinator/training/algorithm.py" in named
    assert len(named) <= 26


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_a_page_are_understood(page: Path) -> None:
    for program, words in _commands(page):
        in_file = ["--broker=mqtt://a", "--id=a", "--data=digits"] if "--config" in words else []
        if program == "cpsl":
            build_parser().parse_args(words)
        elif words[:1] == ["profile"]:
            build_profile_parser().parse_args(words[1:])
        elif words[:1] == ["infer"]:
            build_inference_parser().parse_args([*in_file, *words[1:]])
        elif words != ["--version"]:
            agent_parser().parse_args([*in_file, *words])


def test_modules_that_a_page_runs_are_there() -> None:
    for page in set(PAGES) - {ROOT / "CHANGELOG.md"}:  # It tells of what was.
        for module in re.findall(r"python -m ([\w.]+)", page.read_text(encoding="utf-8")):
            path = ROOT / module.replace(".", "/")
            there = path.with_suffix(".py").exists() or (path / "__main__.py").exists()
            assert there, f"{page.name} runs {module}"


def test_what_is_run_by_a_modules_name_says_what_it_takes() -> None:
    # Without a parser, `--help` is the name of a folder, or starts ten minutes of measuring.
    sources = {
        path.relative_to(ROOT): path.read_text(encoding="utf-8")
        for folder in ("benchmarks", "docs")
        for path in (ROOT / folder).rglob("*.py")
    }
    run = {path: text for path, text in sources.items() if "\nif __name__ ==" in text}
    assert run
    assert [str(path) for path, text in run.items() if "ArgumentParser" not in text] == []


def _commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Every command of ours in a block of shell, with its words."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```(?:console|sh)\n(.*?)```", text, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(r"\s*(?:sudo )?(?:/opt/cpsl/bin/)?(cpsl|cpsl-agent) ([^|#]*)", line)
            if found:
                words = shlex.split(found[2])
                yield found[1], words[: words.index(">")] if ">" in words else words


def _headings(page: Path) -> set[str]:
    """What a link may add behind a #."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
