"""What is seen to before a module is tried: what cannot be taken over, and what is put off."""

import torch
from torch import nn

from runtime.errors import SettingsError

_SPARSE = (nn.Embedding, nn.EmbeddingBag)


def make_ready(module: nn.Module, *, name: str) -> None:
    """Have embeddings give dense gradients, which are what travels; SettingsError for scripts."""
    for path, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            where = f"{path} of {name}" if path else name
            raise SettingsError(
                f"{where} was made by torch.jit, and such a module can be neither copied with its "
                "gradients nor cut; bring the one that it was made of"
            )
        if isinstance(part, _SPARSE):
            part.sparse = False


def is_lazy(module: nn.Module) -> bool:
    """Whether some weights are drawn only once a sample has passed."""
    return any(nn.parameter.is_lazy(parameter) for parameter in module.parameters())


def other_floats(module: nn.Module) -> str:
    """Say that its numbers are not float32, where that is so of most of them; else nothing."""
    numbers = [each for each in module.parameters() if each.is_floating_point()]
    others = {str(each.dtype).removeprefix("torch.") for each in numbers} - {"float32"}
    if len(others) != 1 or any(each.dtype == torch.float32 for each in numbers):
        return ""
    return (
        f"its parameters are {others.pop()}, and samples and smashed data are float32: "
        "have it return itself with .float()"
    )
