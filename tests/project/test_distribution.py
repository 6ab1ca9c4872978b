"""What users are told to install is this project, and not a stranger's."""

import re
import subprocess
import sys
import tomllib

from packaging.requirements import Requirement

from runtime.distribution import DISTRIBUTION
from tests.root import ROOT

TEXTS = [
    path
    for folder in ("profiles", "runtime", "device_agent", "edge_coordinator", "docs", "deploy")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".md", ".toml", ".service"}
] + [ROOT / "README.md", ROOT / "pyproject.toml"]


def test_every_install_hint_names_this_distribution_or_a_dependency_of_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    known = {Requirement(text).name for group in extras.values() for text in group}
    known |= {Requirement(text).name for text in project["dependencies"]} | {DISTRIBUTION}
    assert project["name"] == DISTRIBUTION
    hints = [
        (path, line, word)
        for path in TEXTS
        for line in path.read_text(encoding="utf-8").splitlines()
        for word in _installed_by(line)
    ]
    assert {DISTRIBUTION} <= {Requirement(word).name for _, _, word in hints}
    wrong = [(path, line) for path, line, word in hints if Requirement(word).name not in known]
    assert not wrong
    unknown = {extra for _, _, word in hints for extra in Requirement(word).extras} - set(extras)
    assert not unknown


def test_no_text_asks_for_an_extra_of_the_commands_name() -> None:
    naming = re.compile(r"(?<![\w-])cpsl\[")
    assert [path for path in TEXTS if naming.search(path.read_text(encoding="utf-8"))] == []


def _installed_by(line: str) -> list[str]:
    """The requirements that a line tells to install."""
    _, found, rest = line.partition(" #")[0].partition("pip install ")
    words = re.findall(r"""(?<!\S)['"(]*([A-Za-z][\w.-]*(?:\[[\w,]+\])?)['")`.,;]*(?=\s|$)""", rest)
    return words if found else []


def test_without_what_the_edge_needs_the_command_says_how_to_install_it() -> None:
    code = "import sys; sys.modules['rich'] = None; from edge_coordinator.__main__ import main; "
    code += "sys.exit(main(['runs', '.']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = "cpsl runs needs rich: pip install 'cpsl-edge[edge]'\n"
    assert (done.returncode, done.stderr) == (1, said)
