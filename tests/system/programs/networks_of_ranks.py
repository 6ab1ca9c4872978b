"""Networks that the processes of a server side build by their names."""

import os
import signal
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from runtime.models.sequence import Network

SHAPE = (6, 8)


def is_further_rank() -> bool:
    """Whether this process is one that rank 0 has started."""
    program = sys.modules["__main__"].__spec__
    return program is not None and program.name.endswith("computing.worker")


class _Dies(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, order: str) -> torch.Tensor:  # noqa: ANN401
        ctx.order = order
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ANN401
        if is_further_rank():
            try:
                Path(ctx.order).unlink()
            except FileNotFoundError:
                return gradients[0], None
            os.kill(os.getpid(), signal.SIGKILL)
        return gradients[0], None


class DiesByOrder(nn.Module):
    """Kills a further rank that goes back through it, amid the sum, once a file orders it."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give what it is given."""
        passed: torch.Tensor = _Dies.apply(x, self.order)  # type: ignore[no-untyped-call]
        return passed


def dying(order: str = "") -> Network:
    """A perceptron that one rank does not survive."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(48, 32)
    layers["relu1"] = nn.ReLU()
    layers["fc2"] = nn.Linear(32, 32)
    layers["dies"] = DiesByOrder(order)
    layers["fc3"] = nn.Linear(32, 10)
    return Network(layers, name="dying", input_shape=SHAPE)


class _Raises(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, when: str, order: str) -> torch.Tensor:  # noqa: ANN401
        ctx.when, ctx.order = when, order
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:  # noqa: ANN401
        if is_further_rank() and ctx.when == "back":
            raise ValueError("no such gradient here")
        if not is_further_rank() and Path(ctx.order).is_file():
            Path(ctx.order).unlink()
            raise ValueError("no such gradient")
        return gradients[0], None, None


class Fails(nn.Module):
    """Cannot be built, run or gone back through in a further rank; or not once in rank 0."""

    def __init__(self, when: str, order: str) -> None:
        super().__init__()
        self.when, self.order = when, order
        if when == "built" and is_further_rank():
            raise RuntimeError("no such file")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give what it is given."""
        if self.when == "run" and self.training and is_further_rank():
            raise RuntimeError("out of memory\nand much more")
        passed: torch.Tensor = _Raises.apply(x, self.when, self.order)  # type: ignore[no-untyped-call]
        return passed


def failing(when: str = "", order: str = "") -> Network:
    """A perceptron that not all ranks can compute along; a file orders that rank 0 cannot."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(48, 32)
    layers["fails"] = Fails(when, order)
    layers["fc2"] = nn.Linear(32, 10)
    return Network(layers, name="failing", input_shape=SHAPE)


class Attends(nn.Module):
    """A branch, tied weights and dropout of two kinds: its graph is recorded."""

    input_shape = SHAPE

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(8, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.mid = nn.Linear(8, 8)
        self.late = nn.Linear(8, 8)
        self.late.weight = self.mid.weight
        self.head = nn.Linear(8, 10)
        self.unused = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[sample, position, feature]."""
        entered = torch.relu(self.enter(x))
        attended = self.drop(self.block(entered) + entered)
        again = self.late(torch.relu(self.mid(attended)))
        out: torch.Tensor = self.head(again.mean(1))
        return out
