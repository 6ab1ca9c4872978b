"""Going back from outputs whose gradient is given.

`torch.autograd.backward(outputs, gradient)` compares shapes by computer algebra, and so imports it:
35 MB and a second in each process. From a single number it does not.
"""

from typing import Any

import torch


class _WithGradient(torch.autograd.Function):
    """A number whose gradient with respect to the outputs is the one that was given."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own signature
        outputs: torch.Tensor,
        gradient: torch.Tensor,
    ) -> torch.Tensor:
        ctx.gradient = gradient
        return outputs.new_zeros(())

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401 - torch's own signature
        *_: torch.Tensor,
    ) -> tuple[torch.Tensor, None]:
        return ctx.gradient, None


def with_gradient(outputs: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Return a number to go back from: the outputs' gradient is then this one, to the bit."""
    number: torch.Tensor = _WithGradient.apply(outputs, gradient)  # type: ignore[no-untyped-call]
    return number
