"""The model that a run leaves: the weights of its best round and of its last, each as two files."""

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from safetensors.torch import save

from edge_coordinator.run.whole_file import replace_file
from runtime.datasets.normalise import factors
from runtime.errors import StorageError
from runtime.models.sequence import Network
from runtime.wire.commands import Normalisation
from runtime.wire.names import ClassNames


class Normalising(torch.nn.Module):
    """A network that takes inputs as their source gives them."""

    def __init__(self, network: torch.nn.Module, by: Normalisation, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.mean, self.deviation = map(torch.from_numpy, factors(by, shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Bring the features to mean 0 and deviation 1, and then as the network does."""
        outputs: torch.Tensor = self.network((x - self.mean) / self.deviation)
        return outputs


def save_weights(
    path: Path,
    network: Network,
    *,
    round_: int,
    classes: ClassNames = (),
    features: Sequence[str] = (),
    by: Normalisation | None = None,
) -> None:
    """Write a whole model as safetensors, which say the round that it is of and its classes.

    The inputs it takes have to be normalised `by` the same, which they say too.
    """
    # Copies: weights that are tied are in the file under each of their names.
    state = network.state_dict()
    weights = {n: t.clone().contiguous() for n, t in state.items() if n not in network.constants}
    said = _metadata(round_, classes, features, by)
    if network.input_shape is not None:
        said["input_shape"] = json.dumps(network.input_shape)
    content = save(weights, said)
    write_file(path, _in_order(content) if len(said) > 1 else content)


def _metadata(
    round_: int, classes: ClassNames, features: Sequence[str], by: Normalisation | None
) -> dict[str, str]:
    """What both files say of a model; its classes as a JSON list, in the order of the outputs.

    So are the names of its inputs' columns.
    """
    said = {"round": str(round_)} | ({"classes": json.dumps(classes)} if classes else {})
    said |= {"features": json.dumps(features)} if features else {}
    return said | ({"normalisation": by.model_dump_json()} if by else {})


def _in_order(content: bytes) -> bytes:
    """Sort the entries of a file's metadata, whose order differs from one file to the next."""
    num_bytes = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + num_bytes])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + num_bytes :]


def save_onnx(
    path: Path,
    network: Network,
    sample_shape: tuple[int, ...],
    *,
    round_: int,
    classes: ClassNames = (),
    features: Sequence[str] = (),
    by: Normalisation | None = None,
) -> None:
    """Write a whole model as ONNX, any batch size, in evaluation mode; it normalises its inputs."""
    whole = Normalising(network, by, sample_shape) if by else network
    write_file(path, as_onnx(whole, sample_shape, _metadata(round_, classes, features, by)))


def as_onnx(
    network: torch.nn.Module,
    sample_shape: tuple[int, ...],
    said: Mapping[str, str],
    *,
    names: tuple[str, str] = ("input", "output"),
) -> bytes:
    """Write a network in evaluation mode as ONNX, from the first of these values to the second.

    Raises whatever torch does where neither our export nor its own can write it.
    """
    from edge_coordinator.onnx_export.whole_model import export_whole  # noqa: PLC0415, of weight

    try:
        return export_whole(network, sample_shape, metadata=said, names=names)
    except Exception:  # whatever torch raises, where it cannot trace so or we have no rule
        return _exported_by_torch(network, sample_shape, said, names)


def _exported_by_torch(
    network: torch.nn.Module,
    sample_shape: tuple[int, ...],
    said: Mapping[str, str],
    names: tuple[str, str],
) -> bytes:
    """Export by torch's own exporter, whose imports alone take seconds."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    # The exporter warns of its own deprecations and prints its progress.
    with warnings.catch_warnings(), redirect_stdout(StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.eval(),
            (torch.zeros(2, *sample_shape),),
            dynamo=True,
            input_names=[names[0]],
            output_names=[names[1]],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(said)
    content: bytes = program.model_proto.SerializeToString()
    return content


def write_file(path: Path, content: bytes) -> None:
    """Write a file as a whole; StorageError if that cannot be."""
    try:
        replace_file(path, content)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
