"""What a network begins with: weights of a file or a run, taken over as a whole or refused."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edge_coordinator.job.file import dump_job, load_job
from runtime.errors import SettingsError
from runtime.models.load import load_network
from tests.builders import make_job, weights_of
from tests.noise import shards


def _weights() -> dict[str, torch.Tensor]:
    return dict(load_network("lenet", {}, seed=5).state_dict())


def _save(path: Path, kind: str) -> Path:
    """Write other weights than the job's own, in one of the ways in which they are kept."""
    weights = _weights()
    if kind == "run":
        save_file(weights, path / "model.safetensors")
        return path
    file = path / f"weights.{kind}"
    match kind:
        case "safetensors":
            save_file(weights, file)
        case "pt":
            torch.save(weights, file)
        case "checkpoint":
            wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
            torch.save({"state_dict": wrapped, "epoch": 3}, file)
        case "compiled":
            wrapped = {f"_orig_mod.module.{name}": tensor for name, tensor in weights.items()}
            torch.save(wrapped, file)
        case "lightning":
            wrapped = {f"model.net.{name}": tensor for name, tensor in weights.items()}
            torch.save({"state_dict": wrapped, "pytorch-lightning_version": "2"}, file)
    return file


@pytest.mark.parametrize(
    "kind", ["safetensors", "pt", "checkpoint", "compiled", "lightning", "run"]
)
def test_a_job_begins_with_the_weights_of_a_file_or_a_run(tmp_path: Path, kind: str) -> None:
    given = {"model.start": str(_save(tmp_path, kind)), "model.start_except": ["fc3.*"]}
    job, model = make_job(shards([20], (1, 28, 28)), given)
    theirs, drawn = _weights(), load_network("lenet", {}, seed=0).state_dict()
    for name, found in weights_of(model).items():
        expected = drawn[name] if name.startswith("fc3.") else theirs[name]
        assert torch.equal(torch.from_numpy(found), expected)
    again = tmp_path / "job.toml"
    again.write_text(dump_job(job.settings), encoding="utf-8")
    assert load_job(again, {}).model.start_digest == job.settings.model.start_digest is not None


def test_a_run_is_not_begun_again_with_other_weights(tmp_path: Path) -> None:
    file = _save(tmp_path, "pt")
    job, _ = make_job(shards([20], (1, 28, 28)), {"model.start": str(file)})
    torch.save({name: tensor + 1 for name, tensor in _weights().items()}, file)
    with pytest.raises(SettingsError, match="has changed: the SHA-256 of"):
        make_job(
            shards([20], (1, 28, 28)),
            {"model.start": str(file), "model.start_digest": job.settings.model.start_digest},
        )


class Trap:
    """Would run code where it is unpickled without care."""

    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "settings", "sentence"),
    [
        ({"a": Trap()}, {}, "neither safetensors nor a state_dict of tensors alone"),
        ([1, 2], {}, "holds no state_dict"),
        ({"fc1.weight": torch.ones(2)}, {}, "lacks 9 tensors of the network (conv1.weight, "),
        ({"fc9.weight": torch.ones(2)}, {}, "has 1 that it has not (fc9.weight)"),
        (
            {f"module.net.{name}": each for name, each in _weights().items() if "fc" not in name},
            {},
            "has 4 that it has not (net.conv1.weight, net.conv1.bias, ",
        ),
        ({**_weights(), "x": torch.ones(1)}, {}, "has 1 that it has not (x); model.start_except"),
        (
            {**_weights(), "fc3.bias": torch.ones(7)},
            {},
            "fc3.bias is [7] there and [10] in the network; model.start_except",
        ),
        (_weights(), {"model.start_except": ["fc9.*"]}, "'fc9.*' names nothing of the network"),
        (None, {}, "cannot be read: No such file or directory"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_a_sentence(
    tmp_path: Path, content: object, settings: Mapping[str, object], sentence: str
) -> None:
    file = tmp_path / "weights.pt"
    if content is not None:
        torch.save(content, file)
    with pytest.raises(SettingsError) as caught:
        make_job(shards([20], (1, 28, 28)), {"model.start": str(file), **settings})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model.freeze": ["conv9.*"]}, "model.freeze: 'conv9.*' names nothing of the network"),
        ({"model.freeze": ["*"]}, "leaves nothing that learns"),
        ({"model.name": "torch.nn:Flatten"}, "the network has nothing that learns"),
        (
            {
                "plan.mode": "auto",
                "model.name": "torch.nn:LazyConv2d",
                "model.options": {"out_channels": 1, "kernel_size": 1},
            },
            "has a single layer, and so no place to cut at",
        ),
        ({"model.start_except": ["fc3.*"]}, "are of model.start, not given"),
        ({"training.server_optimizer.no_decay": ["norm*"]}, "server_optimizer.no_decay: 'norm*'"),
        ({"training.class_weights": [1.0, 2.0]}, "has 2 numbers, and the network 10 outputs"),
        (
            {"training.label_smoothing": 0.1, "training.loss": "mse"},
            "label_smoothing is of the loss cross_entropy, and the loss is mse",
        ),
        ({"training.clip.norm": 0}, "training.clip.norm = 0: input should be greater than 0"),
    ],
)
def test_settings_of_training_that_cannot_be_are_refused_in_a_sentence(
    settings: Mapping[str, object], sentence: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        make_job(shards([20], (1, 28, 28)), settings)
    assert sentence in str(caught.value)
