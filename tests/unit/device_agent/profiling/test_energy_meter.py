"""Linux's counters of energy: summed over packages and past their ranges, or none at all."""

from pathlib import Path

import pytest

from device_agent.profiling.energy_meter import start_meter


def write(root: Path, **counts_uj: int) -> None:
    for name, count in counts_uj.items():
        package = root / name.replace("_", ":")
        package.mkdir(exist_ok=True)
        (package / "max_energy_range_uj").write_text("9999999\n")
        (package / "energy_uj").write_text(f"{count}\n")


def test_a_counter_that_begins_anew_loses_nothing_and_cores_count_with_their_package(
    tmp_path: Path,
) -> None:
    write(tmp_path, **{"intel-rapl_0": 9_000_000, "intel-rapl_1": 500, "intel-rapl_0_0": 1})
    joules = start_meter(tmp_path)
    write(tmp_path, **{"intel-rapl_0": 1_000_000, "intel-rapl_1": 250_500, "intel-rapl_0_0": 9})
    assert joules() == pytest.approx(2.25)


def test_without_a_meter_there_are_no_joules(tmp_path: Path) -> None:
    assert start_meter(tmp_path / "none")() is None
    write(tmp_path, **{"intel-rapl_0": 1})
    joules = start_meter(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert joules() is None
