"""The plans of a run before, round by round, as its directory holds them.

A plan and the seed decide which device draws which samples with which weights, so the same plans
end in the same bits: unless a device fell out in the midst of a turn, for how far it had come is
written down nowhere. A round that was tried again is there as the try that counts.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_coordinator.job.file import load_job
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.planning.plan import ClusterPlan, Plan
from runtime.addresses import own_path
from runtime.errors import SettingsError
from runtime.wire.codecs.names import TurnCodecs

_OF_THE_BITS = (
    *("seed", "server_threads", "model", "data", "training", "codec"),
    *("devices.count", "devices.exclude", "devices.engine"),
)
"""Keys of the job without which the same plans are another training."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Cluster(_Part):
    devices: tuple[str, ...]
    micro_batches: int = 1
    phi: float | None = None
    batch_sizes: tuple[int, ...] | None = None
    cuts: tuple[int, ...] | None = None
    cut_layers: tuple[str, ...] | None = None
    num_samples: tuple[int, ...] | None = None


class _Plan(_Part):
    cut: int
    cut_layer: str
    clusters: tuple[_Cluster, ...]
    codecs: TurnCodecs | None = None

    @property
    def named_cuts(self) -> list[tuple[int, str]]:
        """All cuts with the names of their last layers."""
        own = [zip(c.cuts or (), c.cut_layers or (), strict=True) for c in self.clusters]
        return [(self.cut, self.cut_layer), *chain.from_iterable(own)]


class RecordedRound(_Part):
    """What a line of a run's record says of how the round was trained."""

    round: int
    plan: _Plan
    lost: dict[str, str] = {}

    @property
    def devices(self) -> set[str]:
        """All that were planned for."""
        return {device for cluster in self.plan.clusters for device in cluster.devices}


@dataclass(frozen=True)
class ReplayedPlans:
    """Gives each round the plan that it had in a run before."""

    run: Path
    rounds: Sequence[RecordedRound]
    is_exact: bool = True

    def plan(self, round_: int, devices: Sequence[str]) -> Plan:
        """Give the recorded plan, or one without clusters as long as a device of it is missing."""
        if round_ > len(self.rounds):
            raise SettingsError(f"{self.run} holds no plan of round {round_} to replay")
        recorded = self.rounds[round_ - 1]
        missing = sorted(recorded.devices - set(devices))
        if missing:
            return Plan(
                recorded.plan.cut,
                (),
                dict.fromkeys(missing, "is not there"),
                f"round {round_} of {self.run} is replayed with the devices that it had",
            )
        return Plan(
            recorded.plan.cut,
            tuple(
                ClusterPlan(
                    each.devices,
                    (1.0,) * len(each.devices),
                    micro_batches=each.micro_batches,
                    phi=each.phi,
                    batch_sizes=each.batch_sizes or (),
                    cuts=each.cuts or (),
                    num_samples=each.num_samples or (),
                )
                for each in recorded.plan.clusters
            ),
            reason=f"the plan of round {round_} of {self.run}",
            codecs=recorded.plan.codecs,
        )

    def check_devices(self, devices: Sequence[str]) -> None:
        """SettingsError if these, all that there will ever be, are not those of the run."""
        there = set(devices)
        for recorded in self.rounds:
            missing = sorted(recorded.devices - there)
            if missing:
                raise SettingsError(
                    f"round {recorded.round} of {self.run} cannot be replayed with devices "
                    f"{_few(sorted(there))}: it was trained with {_few(missing)}"
                )


def read_replay(
    run: Path, settings: JobSettings, *, layer_names: Sequence[str], base_dir: Path
) -> ReplayedPlans:
    """Read the plans of a run for this job; SettingsError if it cannot end in that run's bits."""
    directory = own_path(run, base_dir=base_dir)
    if not (directory / "job.toml").is_file():
        raise SettingsError(f"plan.mode = 'replay:{run}': {run} is not the directory of a run")
    theirs = load_job(directory / "job.toml", {})
    _check_job(run, theirs, settings)
    recorded = _recorded(directory / "rounds.jsonl")
    _check_growth(run, recorded, theirs, settings)
    wanted = settings.training.rounds
    if len(recorded) < wanted and not settings.evaluation.may_stop_early:
        raise SettingsError(
            f"{run} holds the plans of {len(recorded)} rounds, this job has {wanted}: take "
            f"training.rounds = {len(recorded)}, or finish that run with --resume {run}"
        )
    for each in recorded[:wanted]:
        _check_round(run, each, layer_names)
    return ReplayedPlans(run, tuple(recorded[:wanted]))


def _check_job(run: Path, theirs: JobSettings, ours: JobSettings) -> None:
    """SettingsError if the two jobs differ in what decides the bits."""
    fewer = ours.training.rounds < theirs.training.rounds
    if fewer and ours.training.schedule.name == "cosine":
        raise SettingsError(
            f"{run} has {theirs.training.rounds} rounds, this job {ours.training.rounds}: with a "
            "cosine schedule the rates depend on how many there are"
        )
    left, right = ours.model_dump(mode="json"), theirs.model_dump(mode="json")
    left["training"].pop("rounds"), right["training"].pop("rounds")
    left["data"].pop("features"), right["data"].pop("features")  # Names that change no bits.
    for key in _OF_THE_BITS:
        difference = next(_differences(key, _at(left, key), _at(right, key)), None)
        if difference is not None:
            where, own, other = difference
            raise SettingsError(
                f"{where} is {own!r} in this job and {other!r} in {run}: its plans would end in "
                "other bits"
            )


def _check_growth(
    run: Path, recorded: Sequence[RecordedRound], theirs: JobSettings, ours: JobSettings
) -> None:
    """SettingsError if data grew in that run, and another scenario would have them grow here."""
    grew = any(each.num_samples for done in recorded for each in done.plan.clusters)
    if grew and theirs.devices.scenario != ours.devices.scenario:
        raise SettingsError(
            f"devices.scenario is {ours.devices.scenario!r} in this job and "
            f"{theirs.devices.scenario!r} in {run}, where it says which samples came first: its "
            "plans would end in other bits"
        )


def _at(tree: Any, key: str) -> Any:  # noqa: ANN401 - any value of a job
    for part in key.split("."):
        tree = tree[part]
    return tree


def _differences(key: str, own: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401
    """List where two values of a job differ, the innermost keys."""
    if isinstance(own, dict) and isinstance(other, dict):
        for part in sorted(own.keys() | other.keys()):
            yield from _differences(f"{key}.{part}", own.get(part), other.get(part))
    elif own != other:
        yield key, own, other


def _recorded(path: Path) -> list[RecordedRound]:
    """Read the rounds of a run, from the first on."""
    try:
        # A line that was cut short is of a round that was not done.
        lines = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
        rounds = [RecordedRound.model_validate(json.loads(line)) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(f"{path} cannot be read as the rounds of a run: {reason}") from error
    if [each.round for each in rounds] != list(range(1, len(rounds) + 1)):
        raise SettingsError(f"{path} lacks some rounds, and so cannot be replayed")
    return rounds


def _check_round(run: Path, recorded: RecordedRound, layer_names: Sequence[str]) -> None:
    if recorded.lost:
        device, reason = next(iter(sorted(recorded.lost.items())))
        before = recorded.round - 1
        rest = f"; the rounds before it can, with training.rounds = {before}" if before else ""
        raise SettingsError(
            f"round {recorded.round} of {run} cannot be replayed, since {device} fell out of it "
            f"({reason}){rest}"
        )
    names = ("input", *layer_names)
    for cut, layer in recorded.plan.named_cuts:
        if cut >= len(names) or names[cut] != layer:
            raise SettingsError(
                f"round {recorded.round} of {run} cuts after {layer}, layer {cut} of its network; "
                f"the layers of this job's are {', '.join(layer_names)}"
            )


def _few(devices: Sequence[str], most: int = 6) -> str:
    more = f" and {len(devices) - most} more" if len(devices) > most else ""
    return ", ".join(devices[:most]) + more
