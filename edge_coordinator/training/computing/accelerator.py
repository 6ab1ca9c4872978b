"""Where the server side computes: the processor, or an accelerator beside it.

Whatever travels, is aggregated, exported or written down is on the processor. Only a server side
that trains, and a network that is evaluated, are put on the accelerator, and what they are given
and give is copied: on CUDA through pinned memory, so that a copy waits for nobody.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from runtime.errors import SettingsError
from runtime.wire.frames import Tensor

CPU = torch.device("cpu")
_HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Accelerator:
    """A device of torch's, and how the server side computes on it."""

    device: torch.device = CPU
    autocast: torch.dtype | None = None
    """What products and convolutions are computed in; None: in the network's own type."""
    compiles: bool = False

    @property
    def is_processor(self) -> bool:
        """Whether it is none: all tensors are on the processor already."""
        return self.device.type == "cpu"

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Make new tensors there inside, as a network's code makes masks and positions."""
        with ExitStack() as stack:
            if not self.is_processor:
                stack.enter_context(self.device)
            yield

    @contextmanager
    def casting(self) -> Iterator[None]:
        """Compute inside in the shorter type, where that is wanted."""
        with ExitStack() as stack:
            if self.autocast is not None:
                stack.enter_context(torch.autocast(self.device.type, dtype=self.autocast))
            yield

    def put(self, array: Tensor) -> torch.Tensor:
        """Copy an array there; on the processor it is lent."""
        tensor = torch.from_numpy(array)
        if self.is_processor:
            return tensor
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def begin_fetch(self, tensor: torch.Tensor) -> Callable[[], Tensor]:
        """Begin to copy a tensor back; what is returned waits for it, and gives it."""
        if self.device.type != "cuda":
            return lambda: tensor.cpu().numpy()
        target = torch.empty_like(tensor, device=CPU, pin_memory=True)
        target.copy_(tensor, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()

        def fetched() -> Tensor:
            done.synchronize()
            return target.numpy()

        return fetched

    def wait(self) -> None:
        """Wait until all that was begun there is done; to take the time."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def place(self, layers: nn.Module) -> None:
        """Put some layers there, if they are elsewhere; parameters stay the objects they are."""
        place(layers, self.device)


PROCESSOR = Accelerator()


def place(layers: nn.Module, device: torch.device) -> None:
    """Put the tensors of some layers on a device, in place: others may share them."""
    moved = False
    for tensor in (*layers.parameters(), *layers.buffers()):
        if tensor.device != device:
            tensor.data = tensor.data.to(device)
            moved = True
    for module in layers.modules() if moved else ():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()


def open_accelerator(
    name: str, *, autocast: str, compiles: bool, said_by: str = "training.server_device ="
) -> Accelerator:
    """Choose where the server side computes; SettingsError if this machine has no such device.

    `auto` is the first that there is of cuda, mps and cpu.
    """
    offered = available()
    device = torch.device(offered[0] if name == "auto" else name)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda:0")
    if str(device).removesuffix(":0") not in (each.removesuffix(":0") for each in offered):
        raise SettingsError(
            f"{said_by} {name!r} is not to be had here: there is {' and '.join(offered)}"
        )
    dtype = _HALVES.get(autocast)
    if dtype is torch.bfloat16 and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise SettingsError(
            f"training.autocast = 'bfloat16': {torch.cuda.get_device_name(device)} does not "
            "compute in it; take 'float16' or 'none'"
        )
    return Accelerator(device, dtype, compiles)


def available() -> Sequence[str]:
    """Name what torch can compute on here, the fastest kind first."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return (*cuda, *mps, "cpu")


class LossScale:
    """Gradients in float16 that neither vanish nor overflow: the loss goes back scaled.

    Whatever overflows is done again at half the scale, so no step is left out, and no device gets
    a gradient that is none. A scale is a power of two, which changes no digit, and it is begun
    anew with each turn, so that a run that is resumed ends in the same bits.
    """

    def __init__(self, accelerator: Accelerator, scale: float = 2.0**16) -> None:
        self.scale = scale if accelerator.autocast is torch.float16 else 1.0
        """What the loss is multiplied by."""
        self._is_needed = accelerator.autocast is torch.float16

    def backward(self, loss: torch.Tensor, leaves: Sequence[torch.Tensor]) -> None:
        """Add the gradients of a loss to those of the leaves, which are all that have any."""
        if not self._is_needed:
            torch.autograd.backward(loss)
            return
        while True:
            scaled = loss * self.scale
            found = torch.autograd.grad(scaled, leaves, retain_graph=True, allow_unused=True)
            given = [each for each in found if each is not None]
            if self.scale <= 1 or all(bool(torch.isfinite(each).all()) for each in given):
                break
            self.scale /= 2
        for leaf, gradient in zip(leaves, found, strict=True):
            if gradient is not None:
                own = gradient / self.scale
                leaf.grad = own if leaf.grad is None else leaf.grad + own
