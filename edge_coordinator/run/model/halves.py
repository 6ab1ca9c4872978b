"""A trained network in two halves: the device's as ONNX, the server's on PyTorch or as ONNX too."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edge_coordinator.run.model.files import Normalising, as_onnx, write_file
from edge_coordinator.run.model.saved import SavedModel
from edge_coordinator.training.computing.accelerator import PROCESSOR, Accelerator
from runtime.errors import SettingsError, StorageError
from runtime.inference.half import SIDES, VALUES, Floats, Half, HalfInfo, OnnxHalf, Side, file_of
from runtime.models.kernels import usual_kernels
from runtime.models.load import split


class TorchHalf:
    """The server half as it was in training; its layers are put where it is to compute."""

    def __init__(self, layers: nn.Module, accelerator: Accelerator = PROCESSOR) -> None:
        self._layers = layers.eval()
        self._accelerator = accelerator
        accelerator.place(layers)

    @usual_kernels()
    def run(self, x: Floats) -> Floats:
        """Compute a batch in evaluation mode."""
        with torch.no_grad(), self._accelerator.computing():
            outputs: Floats = self._layers(self._accelerator.put(x)).float().cpu().numpy()
        return outputs


@dataclass(frozen=True)
class SplitModel:
    """Both halves of one model at one cut."""

    info: HalfInfo
    device: OnnxHalf
    server: Half
    smashed_shape: tuple[int, ...]
    """Of one sample."""

    def run(self, x: Floats) -> Floats:
        """Compute a batch by one half after the other."""
        return self.server.run(self.device.run(x))


def split_saved(model: SavedModel, cut: int, accelerator: Accelerator = PROCESSOR) -> SplitModel:
    """Cut a model: the device half on ONNX Runtime, the server half on PyTorch."""
    content = device_half(model, cut)
    device = OnnxHalf(content, where=f"the device half at cut {cut}", side="device")
    server = TorchHalf(split(model.network, cut)[1], accelerator)
    return SplitModel(device.info, device, server, model.shapes[cut])


def load_halves(folder: Path) -> SplitModel:
    """Read both halves from the files that were exported; both run on ONNX Runtime."""
    device, server = (OnnxHalf.load(folder / file_of(side), side) for side in SIDES)
    if device.info.pair != server.info.pair:
        raise SettingsError(
            f"{device.where} and {server.where} are halves of two models, or of two cuts; export "
            "both together"
        )
    return SplitModel(device.info, device, server, server.sample_shape)


def device_half(model: SavedModel, cut: int) -> bytes:
    """Write the device half, which normalises its inputs, as ONNX."""
    layers: nn.Module = split(model.network, cut)[0]
    if model.by is not None:
        layers = Normalising(layers, model.by, model.shapes[0])
    return _as_onnx(layers, model, cut, "device")


def server_half(model: SavedModel, cut: int) -> bytes:
    """Write the server half as ONNX."""
    return _as_onnx(split(model.network, cut)[1], model, cut, "server")


def export_halves(model: SavedModel, cut: int, folder: Path) -> list[Path]:
    """Write both halves into a folder, which is made; the files."""
    contents = {"device": device_half(model, cut), "server": server_half(model, cut)}
    paths = {side: folder / file_of(side) for side in SIDES}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made: {error.strerror}") from error
    for side, path in paths.items():
        write_file(path, contents[side])
    return list(paths.values())


def _as_onnx(layers: nn.Module, model: SavedModel, cut: int, side: Side) -> bytes:
    info = model.info(cut)
    shape = model.shapes[0] if side == "device" else model.shapes[cut]
    try:
        return as_onnx(layers, shape, info.words(side), names=VALUES[side])
    except Exception as error:  # whatever torch raises, where neither export can write it
        reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        raise SettingsError(
            f"the {side} half of {info.network} at cut {info.cut} cannot be written as ONNX: "
            f"{reason}; try another --cut"
        ) from error
