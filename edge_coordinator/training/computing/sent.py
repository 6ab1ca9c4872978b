"""Which tensors of a server side the other ranks have as they are now."""

from collections.abc import Mapping, Sequence

import torch

from runtime.models.side import Side

Named = Mapping[str, torch.Tensor]


def tensors_of(side: Side) -> dict[str, torch.Tensor]:
    """Every weight and buffer by its name, and what the optimiser keeps as name/slot."""
    layers = side.layers
    return {
        **dict(layers.named_parameters(remove_duplicate=False)),
        **dict(layers.named_buffers(remove_duplicate=False)),
        **{f"{n}/{slot}": each for n, kept in side.slots().items() for slot, each in kept.items()},
    }


class SentTensors:
    """Remembers tensors and their versions, of which torch makes another when one is changed.

    So whatever changes a tensor, an update by what was not summed, an undone turn, a checkpoint
    that is gone back to or devices that trained it meanwhile, is noticed without being told.
    """

    def __init__(self) -> None:
        self._versions: dict[str, tuple[torch.Tensor, int]] = {}

    def news(self, tensors: Named) -> tuple[dict[str, torch.Tensor], Sequence[str]]:
        """What the others lack, and the names of what they have and should not."""
        lacking = {
            name: tensor for name, tensor in tensors.items() if not self._is_known(name, tensor)
        }
        of_these = {name.partition("/")[0] for name in tensors}
        gone = [
            name
            for name in self._versions
            if name not in tensors and name.partition("/")[0] in of_these
        ]
        for name in gone:
            del self._versions[name]
        return lacking, gone

    def note(self, tensors: Named) -> None:
        """The others have these as they are."""
        for name, tensor in tensors.items():
            self._versions[name] = tensor, tensor._version  # noqa: SLF001 - torch's own count

    def forget(self) -> None:
        """Nobody knows what the others have."""
        self._versions.clear()

    def _is_known(self, name: str, tensor: torch.Tensor) -> bool:
        known, version = self._versions.get(name, (None, 0))
        return known is tensor and tensor._version == version  # noqa: SLF001
