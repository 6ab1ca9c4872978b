"""What commands print for programs, for scripts that want the answer alone, and for shells."""

import argparse
import json
import subprocess
from io import StringIO
from pathlib import Path

import pytest

from device_agent.command_line import build_inference_parser, build_profile_parser
from device_agent.command_line import build_parser as agent_parser
from edge_coordinator.__main__ import main
from edge_coordinator.cli.completion import completion_script
from edge_coordinator.cli.flags import build_parser, leaf_parsers
from edge_coordinator.cli.output import Output
from edge_coordinator.cli.run_events import EventLines
from edge_coordinator.experiments.tables import read_tables
from edge_coordinator.run.events import (
    ClassesAgreed,
    ClusterStarted,
    Evaluating,
    RoundDone,
    RoundPlanned,
    Stopped,
    Waiting,
)
from tests.sites import make_plan, make_round

PAGE = Path(__file__).parents[2] / "docs" / "scripting.md"
PARSERS = [
    *leaf_parsers(build_parser()),
    agent_parser(),
    *(build_profile_parser(), build_inference_parser()),
]


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.prog)
def test_every_command_has_json_and_quiet(parser: argparse.ArgumentParser) -> None:
    said = parser.format_help()
    assert {"--json", "--quiet", "--log-format"} <= set(said.replace(",", " ").split())


def test_the_page_tells_of_every_command() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    told = " ".join(row.split("|")[1] for row in rows)
    for parser in PARSERS:
        assert parser.prog.split()[-1] in told, parser.prog


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        pytest.param(
            ["model", "mlp"],
            {"network", "input_shape", "layers", "cuts"},
            marks=pytest.mark.torch,
        ),
        (["schema", "status"], {"title", "properties"}),
        (["fleet", "init", "fleet", "--host", "edge"], {"folder", "broker", "site"}),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_document_is_all_that_is_printed(
    words: list[str],
    keys: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--json"]) == 0
    assert keys <= set(json.loads(capsys.readouterr().out))


def test_a_list_of_nothing_is_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_events_of_a_run_are_lines_that_the_page_explains() -> None:
    said = StringIO()
    lines = EventLines(Output("json", file=said))
    for progress in (
        Waiting("a device"),
        ClassesAgreed(("cat", "dog")),
        RoundPlanned(make_plan("ab"), 3),
        ClusterStarted(1, 0, 1, ("a", "b")),
        Evaluating(1),
        RoundDone(make_round(1)),
        Stopped("anna"),
    ):
        lines.tell(progress)
    told = [json.loads(line) for line in said.getvalue().splitlines()]
    assert told[0] == {"event": "waiting", "what": "a device"}
    assert told[2]["plan"]["cut_layer"] == make_plan("ab").cut_layer
    assert told[5]["round_s"] == make_round(1).round_s
    page = PAGE.read_text(encoding="utf-8")
    assert len(told) == 7
    for event in told:
        assert f"`{event['event']}`" in page
        assert all(f"`{field}`" in page for field in event if event["event"] != "round")


def test_quietly_only_the_answer_is_printed() -> None:
    said = StringIO()
    output = Output("quiet", file=said)
    output.say("it goes on", "progress", {})
    output.print("and on")
    output.answer({"path": "runs/a"}, "runs/a")
    output.print("and on")
    assert said.getvalue() == "runs/a\n"


def test_tables_of_a_report_come_with_numbers(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("variant,seed,bytes,accuracy\nsl,0,1.5,nan\n,2,x,\n")
    assert read_tables(tmp_path) == {
        "runs": [
            {"variant": "sl", "seed": 0, "bytes": 1.5, "accuracy": None},
            {"variant": None, "seed": 2, "bytes": "x", "accuracy": None},
        ]
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["cpsl", "moni"], {"monitor"}),
        (["cpsl", "fleet", "ro"], {"rotate"}),
        (["cpsl", "local", "--micro"], {"--micro-batches"}),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_bash_completes_commands_and_flags(words: list[str], expected: set[str]) -> None:
    pytest.importorskip("shtab")
    program = f"""{completion_script("bash")}
COMP_WORDS=({" ".join(words)}) COMP_CWORD={len(words) - 1} COMP_LINE="{" ".join(words)}"
$(complete -p cpsl | sed 's/.*-F \\([^ ]*\\) .*/\\1/') cpsl {words[-1]} {words[-2]}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", program], check=True, capture_output=True, text=True)  # noqa: S607
    assert set(done.stdout.split()) == expected
