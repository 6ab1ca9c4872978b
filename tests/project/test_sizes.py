"""The sizes of the house: rooms, files and constructors that are overlooked at once."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.root import ROOT

Function = ast.FunctionDef | ast.AsyncFunctionDef
MOST_ENTRIES, MOST_LINES, MOST_OF_A_FUNCTION, MOST_PARTS = 20, 300, 40, 6
PROGRAMS = ("profiles", "runtime", "device_agent", "edge_coordinator")
PACKAGES = (
    *PROGRAMS,
    *("tests", "benchmarks", "docs", "examples"),
)
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def _entries(room: Path) -> set[str]:
    """Names in a room; what holds only what Python compiled is none."""
    files = (path.relative_to(room) for path in room.rglob("*") if path.is_file())
    return {path.parts[0] for path in files if "__pycache__" not in path.parts}


def _functions_of_the_programs() -> Iterator[tuple[Path, Function]]:
    for path in MODULES:
        if path.relative_to(ROOT).parts[0] in PROGRAMS:
            for part in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(part, Function):
                    yield path, part


def _num_parts(function: Function) -> int:
    """Count what a method takes beside its object."""
    given = function.args
    return len([*given.posonlyargs, *given.args, *given.kwonlyargs]) - 1


def test_no_room_has_more_than_twenty_entries() -> None:
    num_entries = {room: len(_entries(room)) for room in {path.parent for path in MODULES}}
    assert {room: number for room, number in num_entries.items() if number > MOST_ENTRIES} == {}


def test_no_file_has_more_than_three_hundred_lines() -> None:
    num_lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {path: number for path, number in num_lines.items() if number > MOST_LINES} == {}


def test_no_function_of_the_programs_has_more_than_forty_lines() -> None:
    num_lines = {
        f"{path.relative_to(ROOT)}:{part.lineno} {part.name}": part.end_lineno - part.lineno + 1
        for path, part in _functions_of_the_programs()
        if part.end_lineno
    }
    assert {name: n for name, n in num_lines.items() if n > MOST_OF_A_FUNCTION} == {}


def test_no_constructor_of_the_programs_takes_more_than_six_parts() -> None:
    num_parts = {
        f"{path.relative_to(ROOT)}:{part.lineno}": _num_parts(part)
        for path, part in _functions_of_the_programs()
        if part.name == "__init__"
    }
    assert {name: n for name, n in num_parts.items() if n > MOST_PARTS} == {}
