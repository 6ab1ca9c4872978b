"""The network of a run that is over, as it was in training: from its job and its weights."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from edge_coordinator.job.settings import JobSettings
from edge_coordinator.monitor.record import RunRecord
from runtime.errors import MalformedMessageError, SettingsError
from runtime.inference.half import HalfInfo, Task
from runtime.models.load import (
    cut_index,
    input_shape_of,
    layer_shapes,
    load_network,
    refused_cuts,
)
from runtime.models.sequence import Network, Shape, layers_of
from runtime.wire.commands import Normalisation


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A trained network, and what its run says of it."""

    network: Network
    shapes: tuple[Shape, ...]
    """Of one sample, before the first layer and after each."""
    settings: JobSettings
    round: int
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    """Names of the columns of its inputs, where they have any."""
    by: Normalisation | None = None
    """What its inputs have to be normalised by."""

    @property
    def task(self) -> Task:
        """Whether an output has a score for each class."""
        is_vector = len(self.shapes[-1]) == 1 and self.shapes[-1][0] > 1
        classifies = self.settings.training.loss == "cross_entropy" or bool(self.classes)
        return "classes" if is_vector and classifies else "values"

    def cut(self, layer: str) -> int:
        """How many layers a cut leaves on the device; SettingsError if no cut can be there."""
        cut = cut_index(self.network, layer)
        if reason := refused_cuts(self.network, self.shapes[0]).get(cut):
            raise SettingsError(f"no cut for inference can be after {layer}: {reason}")
        return cut

    def info(self, cut: int) -> HalfInfo:
        """Give what both halves say of themselves."""
        name = ("input", *layers_of(self.network))[cut]
        digest = hashlib.sha256(f"{self.settings.model.name} {name} {self.by}".encode())
        for key, tensor in self.network.state_dict().items():
            digest.update(key.encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
        return HalfInfo(
            network=self.settings.model.name,
            cut=name,
            pair=digest.hexdigest(),
            task=self.task,
            loss=self.settings.training.loss,
            metric=self.settings.evaluation.metric,
            round=self.round,
            classes=self.classes,
            features=self.features,
        )


def load_saved(
    path: Path, settings: JobSettings, *, base_dir: Path, data_shape: Shape | None
) -> SavedModel:
    """Build a job's network and give it the weights in a safetensors file.

    `data_shape` is that of a sample, for a file that does not say it. SettingsError for weights
    that are not there, or of another network.
    """
    said, weights = _read(path)
    stated = tuple(json.loads(said["input_shape"])) if "input_shape" in said else data_shape
    model = settings.model
    network = load_network(
        model.name, model.options, seed=settings.seed, sample_shape=stated, base_dir=base_dir
    )
    try:
        own = network.state_dict()
        constants = {name: tensor for name, tensor in own.items() if name in network.constants}
        network.load_state_dict(constants | weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise SettingsError(f"{path} is of another network than the job's: {reason}") from error
    network.eval()
    shape = input_shape_of(network)
    return SavedModel(
        network,
        (shape, *layer_shapes(network, shape)),
        settings,
        round=int(said.get("round", 0)),
        classes=tuple(json.loads(said.get("classes", "[]"))),
        features=tuple(json.loads(said.get("features", "[]"))),
        by=_normalisation(said, path),
    )


def stated_shape(path: Path) -> Shape | None:
    """Give the shape of a sample that a safetensors file says its model takes, if it does."""
    with _opened(path) as file:
        said = file.metadata() or {}
    return tuple(json.loads(said["input_shape"])) if "input_shape" in said else None


def last_cut(run: Path) -> str:
    """Name the last layer on the devices in a run's last round."""
    return RunRecord(run).last()[0].cut_layer


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    with _opened(path) as file:
        names = list(file.keys())
        return file.metadata() or {}, {name: file.get_tensor(name) for name in names}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise SettingsError(
            f"{path.parent} has no {path.name}: it is written when a run ends, or is stopped"
        )
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise SettingsError(f"{path} is no model: {error}") from error


def _normalisation(said: dict[str, str], path: Path) -> Normalisation | None:
    if "normalisation" not in said:
        return None
    try:
        return Normalisation.decode(said["normalisation"].encode())
    except MalformedMessageError as error:
        raise SettingsError(f"{path}: {error}") from error
