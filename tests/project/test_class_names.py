"""The classes of all packages: one name for one thing, and one tree of errors."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from runtime import errors
from tests.root import ROOT

PACKAGES = ("profiles", "runtime", "device_agent", "edge_coordinator", "benchmarks")
PURE = {"InfeasiblePlanError", "StrategyError", "EmulationError", "RecordingError", "ScenarioError"}
"""What packages without I/O raise; whoever calls them translates."""
INNER = {
    "UnwantedError": "device_agent",
    "PortTakenError": "edge_coordinator/local",
    "StartError": "edge_coordinator/local",
    "UnsupportedOperatorError": "edge_coordinator/onnx_export",
    "UntranslatableError": "edge_coordinator/onnx_export",
    "LinkError": "runtime/bus",
    "NoSkeletonError": "runtime/models",
    "RankFailedError": "edge_coordinator/training/computing",
    "TraceFailedError": "runtime/models",
    "DoesNotTravelError": "runtime/models",
    "NotASequenceError": "runtime/models",
    "NotRebuildableError": "runtime/models",
    "NeedsNumbersError": "runtime/models",
    "DrawsElsewhereError": "runtime/models",
    "UnreadableClipError": "runtime/datasets",
    "UnreadableImageError": "runtime/datasets",
    "UnusableSampleError": "runtime/datasets",
    "NotHereError": "benchmarks",
    "SimulationError": "benchmarks",
    "VersionError": "runtime/bus",
}
"""What is caught in the package that raises it."""


def _classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
            yield from ((path.relative_to(ROOT), node) for node in classes)


def _bases_of_errors() -> dict[str, str]:
    bases = {node.name: ast.unparse(node.bases[0]) for _, node in _classes() if node.bases}
    return {name: base for name, base in bases.items() if name.endswith(("Error", "Exception"))}


def _bases_as_told() -> dict[str, str]:
    """The tree that the docstring draws: each error's parent."""
    bases: dict[str, str] = {}
    above: list[str] = []
    for spaces, name in re.findall(r"^( *)\* (\w+)", errors.__doc__ or "", flags=re.MULTILINE):
        depth = len(spaces) // 4
        bases[name] = above[depth - 1] if depth else "Exception"
        above = [*above[:depth], name]
    return bases


def test_no_two_classes_have_one_name() -> None:
    places = defaultdict(list)
    for path, node in _classes():
        places[node.name].append(f"{path}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_an_error_is_named_as_one() -> None:
    bases = {node.name: [ast.unparse(base) for base in node.bases] for _, node in _classes()}
    unnamed = {
        name
        for name, above in bases.items()
        if any(base.endswith(("Error", "Exception")) for base in above)
        and not name.endswith("Error")
    }
    assert not unnamed


def test_the_tree_of_errors_is_complete_and_drawn_as_it_is() -> None:
    told = _bases_as_told()
    assert told["EdgeError"] == "Exception"
    found = _bases_of_errors()
    assert {name: base for name, base in found.items() if name not in PURE | INNER.keys()} == told
    assert all(found[name] == "ValueError" for name in PURE)


def test_what_is_in_no_tree_stays_in_its_package() -> None:
    for path in sorted(ROOT.glob("[a-z]*/**/*.py")):
        place = path.relative_to(ROOT).as_posix()
        if place.startswith(PACKAGES):
            words = set(re.findall(r"\w+Error\b", path.read_text(encoding="utf-8")))
            assert all(place.startswith(INNER[name]) for name in words & INNER.keys()), place
