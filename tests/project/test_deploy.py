"""What ships for deployment: units that are closed, containers that are nobody special."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.root import ROOT

DEPLOY = ROOT / "deploy"
ANALYZE = shutil.which("systemd-analyze") or ""
UNITS = ROOT / "edge_coordinator" / "fleet" / "templates"


@pytest.mark.skipif(not ANALYZE, reason="needs systemd-analyze")
@pytest.mark.parametrize(
    ("unit", "most"), [("cpsl-agent", 3.0), ("cpsl-coordinator", 3.0), ("cpsl-broker", 5.0)]
)
def test_a_unit_takes_away_what_its_program_does_not_need(
    unit: str, most: float, tmp_path: Path
) -> None:
    path = tmp_path / f"{unit}.service"
    path.write_text((UNITS / path.name).read_text().replace("@FOLDER@", "/etc/cpsl-fleet"))
    said = subprocess.run(
        [ANALYZE, "security", "--offline=true", path],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert found, said
    assert float(found[1]) < most


@pytest.mark.parametrize("name", ["agent", "edge"])
def test_a_container_is_not_root_and_copies_what_is_there(name: str) -> None:
    lines = (DEPLOY / f"{name}.Containerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users[-1:] == ["10001"]
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            assert (ROOT / line.split()[1]).exists()
    assert ("[edge]" in "".join(lines)) is (name == "edge")


def test_a_site_in_containers_is_closed_and_mounts_what_a_fleet_makes(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    pytest.importorskip("cryptography")
    from edge_coordinator.__main__ import main  # noqa: PLC0415

    services: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())[
        "services"
    ]
    fleet = str(tmp_path / "fleet")
    assert main(["fleet", "init", fleet, "--host", "broker"]) == 0
    devices = [name for name in services if name.startswith("pi-")]
    assert main(["fleet", "add", fleet, *devices, "--data", "digits"]) == 0
    (tmp_path / "runs").mkdir()
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "user" in service, name
        for volume in service["volumes"]:
            assert (tmp_path / volume.split(":")[0]).is_dir(), volume
        if name != "fleet":
            assert "./fleet:/fleet" not in service["volumes"]
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()
