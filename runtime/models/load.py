"""From the name of a network to its layers, and from the name of a cut to two halves."""

import itertools
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from runtime.errors import SettingsError
from runtime.models.graph.beforehand import is_lazy, make_ready, other_floats
from runtime.models.graph.capture import capture
from runtime.models.graph.inputs import InputShapes, as_shapes, draw_weights
from runtime.models.graph.network import GraphNetwork
from runtime.models.sequence import Network, NotASequenceError, Shape, as_network, layers_of
from runtime.models.zoo import BUILT_IN
from runtime.plugins import call_factory, import_factory, option_names
from runtime.seeding.torch_generator import forked_generator

NOTHING_ON_THE_DEVICE = ("input", "none")
"""Other names for cut 0, where no layer has one of these."""


def load_network(
    reference: str,
    options: Mapping[str, object],
    *,
    seed: int,
    sample_shape: Shape | None = None,
    base_dir: Path = Path(),
) -> Network:
    """Build a network by its built-in name, or by `package.module:factory`.

    Equal seeds give equal parameters; torch's global random generator is left as it was. A
    factory of the user's own says the shape of a sample by an attribute `input_shape` of what
    it returns or by the option of that name; else it is taken to be `sample_shape`, the shape
    of the data. Raises SettingsError for whatever cannot be built.
    """
    name = f"model {reference}"
    with forked_generator(seed):
        module = _made(reference, options, base_dir=base_dir)
        if ":" not in reference:
            assert isinstance(module, Network)
            return module
        if torch.get_default_device().type != "meta" and device_of(module).type == "meta":
            raise SettingsError(f"{name} is on the device meta, without numbers; build it on cpu")
        shape = getattr(module, "input_shape", None) or options.get("input_shape") or sample_shape
        return network_of(module, name=reference, input_shape=as_shapes(shape, name=name))


def state_bytes(
    reference: str, options: Mapping[str, object], *, base_dir: Path = Path()
) -> int | None:
    """Bytes of a network's state, without giving it any; None where it cannot be told so.

    `options` are those of `load_network`. Nothing runs through the network.
    """
    if ":" not in reference:
        return _built_in_bytes(reference, json.dumps(options, sort_keys=True))
    return _counted_bytes(reference, options, base_dir=base_dir)


@lru_cache(maxsize=64)
def _built_in_bytes(reference: str, options: str) -> int | None:
    """Count once what a thousand devices of one process are asked to hold."""
    return _counted_bytes(reference, json.loads(options), base_dir=Path())


def _counted_bytes(reference: str, options: Mapping[str, object], *, base_dir: Path) -> int | None:
    try:
        with torch.device("meta"):
            state = _made(reference, options, base_dir=base_dir).state_dict()
        return sum(int(tensor.nbytes) for tensor in state.values())
    except Exception:  # Whatever a network of the user's own raises, without numbers.
        return None


def _made(reference: str, options: Mapping[str, object], *, base_dir: Path) -> nn.Module:
    """Call the factory; a Network where it is built in."""
    if ":" not in reference:
        return _build(reference, options)
    name, factory = f"model {reference}", import_factory(reference, base_dir=base_dir)
    if isinstance(factory, nn.Module):
        raise SettingsError(f"{name} is made already; name a function, or a class, that makes it")
    allowed = option_names(factory)
    if allowed is not None and "input_shape" not in allowed:
        options = {key: value for key, value in options.items() if key != "input_shape"}
    module = call_factory(factory, options, name=name)
    if not isinstance(module, nn.Module):
        raise SettingsError(f"{name} returned a {type(module).__name__}, not an nn.Module")
    return module.module if isinstance(module, nn.DataParallel) else _uncompiled(module)


def _uncompiled(module: nn.Module) -> nn.Module:
    """Give what `torch.compile` has wrapped: its parts run elsewhere, and one by one."""
    inner = getattr(module, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else module


def network_of(module: nn.Module, *, name: str, input_shape: InputShapes | None) -> Network:
    """Make a network of any module: of its children where they run in order, else of its graph.

    Where it takes several tensors, `input_shape` has their shapes by name.
    """
    make_ready(module, name=name)
    if input_shape is not None and is_lazy(module):
        draw_weights(module, input_shape, name=name)
    if isinstance(input_shape, Mapping):
        return capture(module, name=name, input_shape=input_shape)
    if input_shape is not None and _is_nested(module):
        with suppress(SettingsError):  # Its children may run in order all the same.
            return capture(module, name=name, input_shape=input_shape)
    try:
        return as_network(module, name=name, input_shape=input_shape)
    except NotASequenceError as error:
        if input_shape is None:
            raise SettingsError(
                f"{error}, and its graph cannot be recorded without the shape of a sample; add "
                "the option input_shape"
            ) from error
        return capture(module, name=name, input_shape=input_shape)


def _is_nested(module: nn.Module) -> bool:
    """Whether there is more to cut at than between its children."""
    if isinstance(module, nn.Sequential):
        return False
    return any(True for layer in module.children() for _ in layer.children())


def name_of(network: nn.Sequential) -> str:
    """Return the network's name, for messages to the user."""
    return network.name if isinstance(network, Network) else "the network"


def input_shape_of(network: nn.Sequential) -> Shape:
    """Return the shape of one sample, without the batch axis; raises SettingsError when unknown."""
    shape = network.input_shape if isinstance(network, Network) else None
    if shape is None:
        raise SettingsError(
            f"model {name_of(network)} does not say what shape of sample it takes; "
            "add the option input_shape"
        )
    return shape


def check_sample_shape(network: nn.Sequential, sample_shape: Shape) -> None:
    """Raise SettingsError unless a sample of this shape fits the network and runs through it."""
    if isinstance(network, Network) and network.input_shape not in (None, sample_shape):
        raise SettingsError(
            f"a sample of shape {sample_shape} does not fit model {name_of(network)}, "
            f"which takes {network.input_shape}{_by_option(network, sample_shape)}"
        )
    layer_shapes(network, sample_shape)


def _by_option(network: Network, sample_shape: Shape) -> str:
    """Say how a network of ours takes other samples."""
    if ":" in network.name or not (wanted := network.input_shape):
        return ""
    if len(wanted) == len(sample_shape) == 3 and sample_shape[-1] == wanted[0]:
        return "; channels come first, as by x.transpose(0, 3, 1, 2)"
    return f"; add input_shape = {list(sample_shape)} to model.options"


def layer_shapes(network: nn.Sequential, sample_shape: Shape) -> tuple[Shape, ...]:
    """Return each layer's output shape for one sample, [layer], without the batch axis.

    Raises SettingsError naming the layer that cannot take what it is given.
    """
    return tuple(shape for shape, _ in _outputs(network, sample_shape))


def refused_cuts(network: nn.Sequential, sample_shape: Shape) -> dict[int, str]:
    """Cuts, as numbers of layers, at which smashed data would be no float32; and why."""
    return {
        count: f"what {name} gives is {str(dtype).removeprefix('torch.')}, and smashed data "
        "travel as float32"
        for count, (name, (_, dtype)) in enumerate(
            zip(layers_of(network), _outputs(network, sample_shape), strict=True), start=1
        )
        if dtype != torch.float32
    }


def _outputs(network: nn.Sequential, sample_shape: Shape) -> list[tuple[Shape, torch.dtype]]:
    """Shape and type of what each layer gives for one sample, [layer]."""
    if isinstance(network, GraphNetwork) and network.input_shape == sample_shape:
        return network.outputs  # Seen when it was recorded.
    return _run_through(network, sample_shape)


def _run_through(network: nn.Sequential, sample_shape: Shape) -> list[tuple[Shape, torch.dtype]]:
    """Run a sample of zeros through the layers."""
    outputs = []
    was_training = network.training
    network.eval()
    batch = torch.zeros(1, *sample_shape, device=device_of(network))
    try:
        with torch.no_grad():
            for name, layer in layers_of(network).items():
                batch = _run_layer(network, name, layer, batch)
                outputs.append((tuple(batch.shape[1:]), batch.dtype))
    finally:
        network.train(was_training)
    return outputs


def device_of(network: nn.Module) -> torch.device:
    """Where a network computes: the processor, or `meta`, where tensors have no numbers."""
    tensors = itertools.chain(network.parameters(), network.buffers())
    return next((each.device for each in tensors), torch.device("cpu"))


def cut_index(network: nn.Sequential, cut: str | int) -> int:
    """How many layers a cut leaves on the device: 0 up to the number of layers.

    `cut` is the name of the last layer on the device, or `input` or `none` for cut 0, or the
    count itself. Text that is a layer's name means that layer, also if it looks like a number.
    """
    names = list(layers_of(network))
    if isinstance(cut, str):
        if cut in names:
            return names.index(cut) + 1
        if isinstance(network, GraphNetwork) and network.resolve(cut) in names:
            return names.index(network.resolve(cut)) + 1
        if cut in NOTHING_ON_THE_DEVICE:
            return 0
        if not cut.isdecimal():
            known = ", ".join(names)
            raise SettingsError(
                f"no layer named {cut!r} in {name_of(network)}; the layers are {known}"
            )
    count = int(cut)
    if not 0 <= count <= len(names):
        raise SettingsError(
            f"cut {count} is outside {name_of(network)}, which has {len(names)} layers; "
            f"a cut is a number from 0 to {len(names)} or the name of a layer"
        )
    return count


def split(network: nn.Sequential, cut: str | int) -> tuple[Network, Network]:
    """Part a network into its device side and its server side.

    Both share the network's layers and keep their names. The server side takes whatever
    shape the device side returns.
    """
    count = cut_index(network, cut)
    whole = network if isinstance(network, Network) else _named(network)
    return whole.part(0, count), whole.part(count, len(layers_of(network)))


def _named(network: nn.Sequential) -> Network:
    """Take a plain sequence for a network without a name."""
    whole = Network(layers_of(network), name=name_of(network))
    whole.training = network.training
    return whole


def _build(name: str, options: Mapping[str, object]) -> Network:
    if name not in BUILT_IN:
        raise SettingsError(
            f"no model named {name!r}; the built-in models are {', '.join(BUILT_IN)}, and "
            "one of your own is named package.module:factory"
        )
    built = call_factory(BUILT_IN[name], options, name=f"model {name}")
    assert isinstance(built, Network)
    return built


def _run_layer(
    network: nn.Sequential, name: str, layer: nn.Module, batch: torch.Tensor
) -> torch.Tensor:
    shape = tuple(batch.shape[1:])
    where = f"layer {name} of model {name_of(network)}"
    try:
        output = layer(batch)
    except Exception as error:  # It may be the user's own.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise SettingsError(
            f"{where} cannot take what it is given, {shape}: {other_floats(network) or reason}"
        ) from error
    if not isinstance(output, torch.Tensor) or output.shape[:1] != batch.shape[:1]:
        raise SettingsError(f"{where} does not return one tensor with a batch axis for {shape}")
    return output
