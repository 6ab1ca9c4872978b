"""What each round of a run was planned by, in its directory: a line of JSON for each.

Of a device, or the server, that is as in the line before nothing is written but null. A run that
was resumed may have lines of rounds that were run again: the last of a round counts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from edge_coordinator.planning.fleet import PlanBasis, Workload
from profiles.corrections import Corrections
from profiles.device import ComputeState, DeviceState
from profiles.link import LinkState
from profiles.power import Power
from profiles.units import Floats
from runtime.errors import SettingsError

BASES = "profiles.jsonl"
_DIGITS = 7
"""Of a figure: enough to price by, and half of what a number's text can be long."""


class _BasisPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")


class _ServerLine(_BasisPart):
    forward_s: list[float]
    backward_s: list[float]
    device_s: float
    part_s: float = 0.0
    """Not in what an earlier version wrote."""


class _DeviceLine(_BasisPart):
    num_samples: int
    free_memory_bytes: float
    forward_s: list[float] | None
    backward_s: list[float] | None
    link: LinkState | None
    scale: list[float]
    added_s: list[float]
    label_counts: tuple[int, ...] | None = None
    deepest_cut: int | None = None
    why_no_deeper: str = ""
    shallowest_cut: int = 0
    power: Power | None = None

    def state(self, device: str) -> DeviceState:
        """Give it as the planner takes it."""
        return DeviceState(
            device=device,
            num_samples=self.num_samples,
            free_memory_bytes=self.free_memory_bytes,
            compute=ComputeState.of_lists(forward_s=self.forward_s, backward_s=self.backward_s),
            link=self.link,
            corrections=Corrections(np.array(self.scale), np.array(self.added_s)),
            label_counts=self.label_counts,
            deepest_cut=self.deepest_cut,
            why_no_deeper=self.why_no_deeper,
            shallowest_cut=self.shallowest_cut,
            power=self.power,
        )


class _BasisLine(_BasisPart):
    round: int
    lessons: int
    label_bits: float
    cluster_overhead_s: float
    round_overhead_s: float
    known_bytes: dict[int, float] = {}
    refused_cuts: dict[int, str] = {}
    server: _ServerLine | None
    devices: dict[str, _DeviceLine | None]


@dataclass(frozen=True)
class RecordedBasis:
    """What one round was planned by, but for what its job and its network say."""

    round: int
    states: tuple[DeviceState, ...]
    lessons: int
    server: ComputeState
    server_device_s: float
    server_part_s: float
    label_bits: float
    cluster_overhead_s: float
    round_overhead_s: float
    known_bytes: Mapping[int, float]
    refused_cuts: Mapping[int, str]

    def over(self, workload: Workload) -> Workload:
        """Put what was measured into the place of what a workload says."""
        return replace(
            workload,
            server=self.server,
            server_device_s=self.server_device_s,
            server_part_s=self.server_part_s,
            label_bits=self.label_bits,
            cluster_overhead_s=self.cluster_overhead_s,
            round_overhead_s=self.round_overhead_s,
            known_bytes=self.known_bytes,
            refused_cuts={**self.refused_cuts, **workload.refused_cuts},
        )


class BasisLines:
    """Writes the lines of one start of a run."""

    def __init__(self) -> None:
        self._server: dict[str, Any] | None = None
        self._devices: dict[str, dict[str, Any]] = {}

    def line(self, round_: int, basis: PlanBasis) -> str:
        """Write down what a round was planned by."""
        work = basis.workload
        server = {
            "forward_s": _short(work.server.forward_s),
            "backward_s": _short(work.server.backward_s),
            "device_s": work.server_device_s,
            "part_s": work.server_part_s,
        }
        devices = {state.device: _fields(state) for state in basis.states}
        tree = {
            "round": round_,
            "lessons": basis.lessons,
            "label_bits": work.label_bits,
            "cluster_overhead_s": work.cluster_overhead_s,
            "round_overhead_s": work.round_overhead_s,
            "known_bytes": dict(work.known_bytes),
            "refused_cuts": dict(work.refused_cuts),
            "server": None if server == self._server else server,
            "devices": {
                device: None if fields == self._devices.get(device) else fields
                for device, fields in devices.items()
            },
        }
        self._server, self._devices = server, self._devices | devices
        return json.dumps(tree)


def read_bases(run: Path) -> list[RecordedBasis]:
    """Read what each round was planned by; SettingsError where nothing can be read."""
    path = run / BASES
    try:
        lines = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
        return _bases([_BasisLine.model_validate_json(line) for line in lines])
    except FileNotFoundError as error:
        raise SettingsError(
            f"{run} holds no {BASES}: its rounds were not planned from measurements (plan.mode "
            "'auto' does), or by an earlier version"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(f"{path} cannot be read as what plans rest on: {reason}") from error


def _bases(lines: Sequence[_BasisLine]) -> list[RecordedBasis]:
    known: dict[str, _DeviceLine] = {}
    server: _ServerLine | None = None
    found: dict[int, RecordedBasis] = {}
    for line in lines:
        server = line.server or server
        known |= {device: told for device, told in line.devices.items() if told is not None}
        if server is None:
            raise ValueError(f"round {line.round} does not say how fast the server is")
        found[line.round] = RecordedBasis(
            round=line.round,
            states=tuple(known[device].state(device) for device in sorted(line.devices)),
            lessons=line.lessons,
            server=ComputeState(np.array(server.forward_s), np.array(server.backward_s)),
            server_device_s=server.device_s,
            server_part_s=server.part_s,
            label_bits=line.label_bits,
            cluster_overhead_s=line.cluster_overhead_s,
            round_overhead_s=line.round_overhead_s,
            known_bytes=line.known_bytes,
            refused_cuts=line.refused_cuts,
        )
    return [found[round_] for round_ in sorted(found)]


def _fields(state: DeviceState) -> dict[str, Any]:
    compute, link = state.compute, state.link
    return {
        "num_samples": state.num_samples,
        "free_memory_bytes": state.free_memory_bytes,
        "forward_s": _short(compute.forward_s) if compute else None,
        "backward_s": _short(compute.backward_s) if compute else None,
        "link": {key: _digits(value) for key, value in asdict(link).items()} if link else None,
        "scale": _short(state.corrections.scale),
        "added_s": _short(state.corrections.added_s),
        "label_counts": state.label_counts,
        "deepest_cut": state.deepest_cut,
        "why_no_deeper": state.why_no_deeper,
        "shallowest_cut": state.shallowest_cut,
        "power": asdict(state.power) if state.power else None,
    }


def _short(values: Floats) -> list[float]:
    return [_digits(value) for value in values.tolist()]


def _digits(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
