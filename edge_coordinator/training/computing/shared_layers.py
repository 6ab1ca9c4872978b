"""A server side's layers as several ranks run them, which to all others is one function.

Rank 0 has the smashed data and parts them by device; each rank goes forward with its own. The
outputs come to rank 0, which computes the loss of all of them together, whatever the loss is, and
sends each rank the gradient of its outputs; each goes back, the gradients of the parameters are
summed, those of the inputs come to rank 0. Then all update alike. So it is the step of one process,
but for the order of a sum. Where a rank is lost amid it, rank 0 computes the step by itself.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from typing import Any

import numpy as np
import torch

from edge_coordinator.training.computing.accelerator import Accelerator, LossScale
from edge_coordinator.training.computing.answers import Asked, RankAnswers
from edge_coordinator.training.computing.ranks import Ranks
from edge_coordinator.training.computing.sent import tensors_of
from edge_coordinator.training.computing.share import Share
from edge_coordinator.training.computing.shares import share_out
from runtime.models.given_gradient import with_gradient
from runtime.models.seeded import Slice
from runtime.models.side import Side
from runtime.wire.commands import Clip
from runtime.wire.micro_batches import Rows

Gradients = tuple[torch.Tensor | None, Sequence[torch.Tensor | None]]
"""Of the inputs, if they are wanted, and of each parameter that learns."""
Alone = Callable[[torch.Tensor], torch.Tensor]
"""Runs the layers in this process alone."""


class SharedLayers:
    """What runs the layers above a cut during one turn."""

    def __init__(self, ranks: Ranks, cut: int, accelerator: Accelerator) -> None:
        self._ranks = ranks
        self._cut = cut
        self._accelerator = accelerator
        self._scale = LossScale(accelerator)
        self._step: SharedStep | None = None
        """The one that all ranks are at; None if rank 0 was alone."""

    def run(
        self,
        side: Side,
        inputs: torch.Tensor,
        slices: Sequence[Slice],
        *,
        alone: Alone,
        scale: LossScale,
    ) -> torch.Tensor:
        """Go forward with the samples of these devices, by all ranks if they can.

        `scale` is what the loss goes back by, and the gradients with it.
        """
        self._step, self._scale = None, scale
        learns = inputs.requires_grad or bool(side.trainable)
        is_parted = len(slices) > 1 and all(isinstance(size, int) for _, size in slices)
        if not (learns and is_parted and torch.is_grad_enabled() and self._ranks.are_there()):
            return alone(inputs)
        try:
            share = self._ranks.share(self._cut, side.layers, self._accelerator)
        except (RuntimeError, ValueError) as error:
            self._ranks.drop(RankAnswers(), why=f"cannot compute along: {_first_line(error)}")
            return alone(inputs)
        step = SharedStep(self._ranks, share, slices, alone=alone, accelerator=self._accelerator)
        outputs = step.forward(side, inputs, self._cut)
        if outputs is None:
            outputs = alone(inputs)  # Or it is the layers' own fault, or that of what they get.
            step.blame()
            return outputs
        self._step = step
        shared: torch.Tensor = _Shared.apply(step, inputs, outputs, *side.trainable)  # type: ignore[no-untyped-call]
        return shared

    def updated(self, side: Side, learning_rate: float, clip: Clip | None) -> None:
        """Have all ranks update as this one did, if they have the gradients."""
        step, self._step = self._step, None
        if step is None or not step.is_summed:
            return
        given = None if clip is None else clip.model_dump(mode="json")
        scale = self._scale.scale
        self._ranks.tell("update", {"learning_rate": learning_rate, "clip": given, "scale": scale})
        self._ranks.sent.note(tensors_of(side))


class _Shared(torch.autograd.Function):
    """Outputs that are there already, from which the way back is that of all ranks."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own signature
        step: "SharedStep",
        inputs: torch.Tensor,  # noqa: ARG004 - what the gradients are of
        outputs: torch.Tensor,
        *parameters: torch.Tensor,  # noqa: ARG004
    ) -> torch.Tensor:
        ctx.step = step
        return outputs.view_as(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:  # noqa: ANN401
        of_inputs, of_parameters = ctx.step.backward(gradients[0])
        return None, of_inputs, None, *of_parameters


class SharedStep:
    """One step of all ranks."""

    def __init__(
        self,
        ranks: Ranks,
        share: Share,
        slices: Sequence[Slice],
        *,
        alone: Alone,
        accelerator: Accelerator,
    ) -> None:
        """`slices` are the devices' samples, in order."""
        self._ranks = ranks
        self._share = share
        self._slices = slices
        self._alone = alone
        self._accelerator = accelerator
        sizes = [len(_rows(size)) for _, size in slices]
        self._shares = share_out(sizes, ranks.num_ranks)
        self._ends = np.cumsum([0, *sizes])
        self.is_summed = False
        """Whether all ranks have the gradients."""
        self._is_with_all = True
        self._answers, self._why = RankAnswers(), ""
        self._is_own_fault = False

    def forward(self, side: Side, inputs: torch.Tensor, cut: int) -> torch.Tensor | None:
        """Give the outputs of all samples; None if somebody was lost, or could not."""
        self._inputs, self._back = inputs.detach(), inputs.requires_grad
        self._learning, start_s = list(side.trainable), time.monotonic()
        asked = self._ask_forward(side, cut)
        slices, rows = self._of_rank(0)
        own, self._why = None, ""
        try:
            with self._few_threads():
                own = self._share.forward(self._inputs[rows], slices, back=self._back)
        except Exception as error:  # The network may be the user's own: it is tried alone, too.
            self._why, self._is_own_fault = _first_line(error), True
        self._answers = self._ranks.answers(asked, own_s=time.monotonic() - start_s)
        if own is None or not self._answers.are_whole:
            self._ranks.sent.forget()
            return None
        self._own_outputs = own
        of_others = [self._accelerator.put(each.arrays[0]) for each in self._answers.in_order]
        of_ranks = [
            outputs if devices else outputs[:0]  # Who has none has computed along.
            for outputs, devices in zip([own, *of_others], self._shares, strict=True)
        ]
        self._lengths = [len(each) for each in of_ranks]
        return torch.cat(of_ranks)

    def backward(self, gradient: torch.Tensor) -> Gradients:
        """Give the gradients of all inputs and of the parameters, from those of the outputs."""
        self.is_summed = False
        if self._is_with_all:
            found = self._together(gradient)
            if found is not None:
                return found
        alone = self._by_itself(gradient)
        self.blame()
        return alone

    def blame(self) -> None:
        """Go on without those because of whom the step is computed by rank 0 alone.

        Where rank 0's own share failed, what the others say is of the sum that it then broke off.
        """
        if not self._is_with_all:
            return
        self._is_with_all = False
        if self._is_own_fault:
            why = f"cannot be computed with: rank 0 says of its own share: {self._why}"
            self._ranks.drop(RankAnswers(silent=self._answers.silent), why=why)
        else:
            self._ranks.drop(self._answers, why=f"cannot compute along: {self._why}")

    def _ask_forward(self, side: Side, cut: int) -> Asked:
        """Send each rank its samples, and what has changed since it was sent or updated."""
        tensors = tensors_of(side)
        lacking, gone = self._ranks.sent.news(tensors)
        self._ranks.sent.note(tensors)
        fields = {"cut": cut, "back": self._back, "names": [*lacking], "gone": [*gone]}
        arrays = [each.detach().cpu().numpy() for each in lacking.values()]
        requests = []
        for rank in range(1, len(self._shares)):
            slices, rows = self._of_rank(rank)
            told = [([int(word) for word in key], astuple(_rows(size))) for key, size in slices]
            requests.append(
                ({**fields, "slices": told}, [self._inputs[rows].cpu().numpy(), *arrays])
            )
        return self._ranks.ask("forward", requests)

    def _together(self, gradient: torch.Tensor) -> Gradients | None:
        start_s, parts = time.monotonic(), torch.split(gradient, self._lengths)
        asked = self._ranks.ask(
            "backward",
            [
                ({}, [part.cpu().numpy()] if devices else [])
                for part, devices in zip(parts[1:], self._shares[1:], strict=True)
            ],
        )
        from_outputs = parts[0] if self._shares[0] else torch.zeros_like(self._own_outputs)
        own, self._why = None, ""
        with self._ranks.meeting, self._few_threads():
            try:
                own = self._share.backward(from_outputs)
            except Exception as error:  # The network may be the user's own.
                self._why = _first_line(error)
                self._is_own_fault = not self._share.is_sum_broken
        if self._why:
            self._break_off()  # Nobody is to wait for this rank.
        self._answers = self._ranks.answers(asked, own_s=time.monotonic() - start_s)
        if self._why or not self._answers.are_whole:
            self._break_off()
            return None
        self.is_summed = True
        of_parameters = [each.grad for each in self._share.learning]
        self._share.forget_gradients()
        return self._joined(own), of_parameters

    def _break_off(self) -> None:
        self._share.close()
        self._ranks.break_off()

    def _joined(self, own: torch.Tensor | None) -> torch.Tensor | None:
        """Join the gradients of the inputs, in the devices' order."""
        if own is None:
            return None
        others = [self._accelerator.put(each.arrays[0]) for each in self._answers.in_order]
        return torch.cat(
            [each for each, devices in zip([own, *others], self._shares, strict=True) if devices]
        )

    def _by_itself(self, gradient: torch.Tensor) -> Gradients:
        inputs = self._inputs.detach().requires_grad_(self._back)
        wanted = [inputs, *self._learning] if self._back else self._learning
        with torch.enable_grad():
            number = with_gradient(self._alone(inputs), gradient)
        found = torch.autograd.grad(number, wanted, allow_unused=True)
        return (found[0], found[1:]) if self._back else (None, found)

    def _of_rank(self, rank: int) -> tuple[Sequence[Slice], slice]:
        """Which devices' samples a rank has; a rank without any computes one along, for nothing."""
        devices = self._shares[rank]
        if devices:
            start, stop = self._ends[devices.start], self._ends[devices.stop]
            return self._slices[devices.start : devices.stop], slice(start, stop)
        key, size = self._slices[0]
        return [(key, Rows(0, 1, len(_rows(size))))], slice(0, 1)

    @contextmanager
    def _few_threads(self) -> Iterator[None]:
        """Share the processor's cores with the other ranks, where they compute on it, too."""
        before = torch.get_num_threads()
        if self._accelerator.is_processor:
            torch.set_num_threads(self._ranks.num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _rows(size: int | Rows) -> Rows:
    return size if isinstance(size, Rows) else Rows.all(size)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
