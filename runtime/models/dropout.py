"""Dropout whose masks come from the step's key instead of torch's random generator."""

from collections.abc import Iterable, Iterator

from torch import nn

from runtime.errors import SettingsError
from runtime.models.attention import drops_inside, seeded_attention
from runtime.models.recurrent import drops_between_layers, seeded_recurrent
from runtime.models.seeded import SeededDropout, SeededGenerator, Slice

ELEMENT_WISE = (nn.Dropout,)
CHANNEL_WISE = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
NOT_SEEDED = (nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU)


def seed_dropout(network: nn.Sequential) -> nn.Sequential:
    """Replace every dropout layer of a whole network in place by a SeededDropout; return it.

    Call it before the network is split, so that full names are those of the whole. Raises
    SettingsError for layers that draw random numbers by themselves, unless the network has
    seen to those too, as one captured as a graph has.
    """
    if not getattr(network, "draws_by_address", False):
        for name, module in network.named_modules(remove_duplicate=False):
            if isinstance(module, NOT_SEEDED):
                raise SettingsError(
                    f"layer {name} ({type(module).__name__}) draws random numbers by itself, so it "
                    "cannot be cut from the rest; set its dropout to 0 or use nn.Dropout"
                )
        replace_dropout(network)
    return network


def replace_dropout(module: nn.Module) -> None:
    """Replace every dropout layer in place by a SeededDropout of its name."""
    named = [*module.named_modules(remove_duplicate=False)]
    replacements = {name: _seeded(name, layer) for name, layer in named if name}
    for name, replacement in replacements.items():
        if replacement is not None:
            module.set_submodule(name, replacement.train(module.get_submodule(name).training))


def _seeded(name: str, layer: nn.Module) -> nn.Module | None:
    """What stands for a layer that drops, with its own weights; None for any other."""
    if isinstance(layer, nn.MultiheadAttention) and drops_inside(layer):
        return seeded_attention(layer, name=name)
    if isinstance(layer, nn.RNNBase) and drops_between_layers(layer):
        return seeded_recurrent(layer, name=name)
    if not isinstance(layer, ELEMENT_WISE + CHANNEL_WISE):
        return None
    if layer.p >= 1:
        raise SettingsError(f"layer {name} drops everything: its p is {layer.p}, not below 1")
    return SeededDropout(layer.p, layer=name, channel_wise=isinstance(layer, CHANNEL_WISE))


def dropout_layers(network: nn.Module) -> Iterator[SeededDropout]:
    """Find the seeded dropout layers, in the order of their registration."""
    for module in network.modules():
        if isinstance(module, SeededDropout):
            yield module


def set_dropout_keys(network: nn.Module, slices: Iterable[Slice]) -> None:
    """Say whose samples the next batch is made of: (key, samples) in batch order.

    A key is the words that name a device's step, such as (seed, device, round, local epoch). A
    micro-batch has its rows of the mask of the whole mini-batch.
    """
    given = tuple(slices)
    for layer in network.modules():
        if isinstance(layer, SeededDropout | SeededGenerator):
            layer.slices = given
