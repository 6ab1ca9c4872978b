"""Parameters that do not learn."""

from collections.abc import Sequence

from torch import nn

from runtime.wire.fields import named_by


def freeze(network: nn.Module, patterns: Sequence[str]) -> None:
    """Have no gradients of the parameters that these patterns name.

    Statistics of normalisations go on following the batches, as torch has it.
    """
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if named_by(patterns, name):
            parameter.requires_grad = False
