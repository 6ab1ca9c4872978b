"""One rank's share of a step: its devices' samples forward and back, gradients summed over all."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from edge_coordinator.training.computing.accelerator import Accelerator
from runtime.models.dropout import set_dropout_keys
from runtime.models.given_gradient import with_gradient
from runtime.models.seeded import Slice
from runtime.seeding import torch_seed
from runtime.seeding.torch_generator import seed_generators


class Share:
    """The layers of a server side in one rank, and the step that it is at.

    All ranks go forward and back at the same time: on the way back `DistributedDataParallel` sums
    the gradients of the parameters. The loss is computed by rank 0, of everybody's outputs, so what
    goes back from them is that of the cluster's mean already, and the sum is no mean of shares.
    """

    def __init__(self, layers: nn.Module, accelerator: Accelerator) -> None:
        self._layers = layers.train()
        self._accelerator = accelerator
        self.learning = [each for each in layers.parameters() if each.requires_grad]
        """Parameters that learn, in order, each once."""
        self._sum = _Sum()
        self._run = _summing(layers, self._sum) if self.learning else layers
        self._inputs = torch.empty(0)
        self._slices: Sequence[Slice] = ()
        self._outputs: torch.Tensor | None = None

    @property
    def is_sum_broken(self) -> bool:
        """Whether the last way back had no sum over the ranks, which is not this one's fault."""
        return self._sum.is_broken

    def forward(self, inputs: torch.Tensor, slices: Sequence[Slice], *, back: bool) -> torch.Tensor:
        """Give the outputs; `back` if the gradient of the inputs will be wanted."""
        self._inputs, self._slices = inputs.detach().requires_grad_(back), slices
        self._outputs = self._computed()
        return self._outputs.detach()

    def backward(self, gradient: torch.Tensor) -> torch.Tensor | None:
        """Go back from the outputs; the gradient of the inputs, if it is wanted.

        Those of the parameters are the sums of all ranks'. It may be done again with another
        gradient, for which it goes forward again: what torch sums, it sums once.
        """
        self._sum.is_broken = False
        outputs = self._computed() if self._outputs is None else self._outputs
        self._outputs = self._inputs.grad = None
        self.forget_gradients()
        with torch.enable_grad():
            torch.autograd.backward(with_gradient(outputs, gradient))
        return self._inputs.grad

    def close(self) -> None:
        """Let go of the group that sums, and of the step that it was at."""
        self._run, self._outputs = self._layers, None

    def forget_gradients(self) -> None:
        """Begin a step anew."""
        for parameter in self.learning:
            parameter.grad = None

    def _computed(self) -> torch.Tensor:
        seed_generators(torch_seed(self._slices[0][0]))
        set_dropout_keys(self._layers, self._slices)
        accelerator = self._accelerator
        with torch.enable_grad(), accelerator.computing(), accelerator.casting():
            outputs: torch.Tensor = self._run(self._inputs)
            return outputs if accelerator.autocast is None else outputs.float()


class _Sum:
    """What the sums over all ranks came to; what torch holds on to, and so knows no share."""

    is_broken = False

    def of(self, gradients: torch.Tensor) -> torch.futures.Future[torch.Tensor]:
        """Sum gradients over the ranks; what torch does by itself is their mean."""
        with self._watched():
            summed = distributed.all_reduce(gradients, async_op=True).get_future()
        return summed.then(self._first)  # type: ignore[no-any-return]

    def _first(self, done: torch.futures.Future[list[torch.Tensor]]) -> torch.Tensor:
        with self._watched():
            return done.value()[0]

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError:
            self.is_broken = True
            raise


class _WithSpare(nn.Module):
    """Layers beside a parameter that nobody uses.

    Which parameters a step uses may differ from step to step and from rank to rank, so torch has to
    look. Where it looks and finds all of them used it says that it need not have, and this program
    cannot tell it otherwise.
    """

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        device = next(iter(layers.parameters())).device
        self.spare = nn.Parameter(torch.zeros(1, device=device))
        # By this name torch is told what not to send before each step: rank 0 sends what changes.
        self._ddp_params_and_buffers_to_ignore = [
            f"layers.{name}" for name, _ in layers.named_buffers(remove_duplicate=False)
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the layers."""
        outputs: torch.Tensor = self.layers(x)
        return outputs


def _summing(layers: nn.Module, sum_: _Sum) -> nn.Module:
    from torch._C._distributed_c10d import GradBucket  # noqa: PLC0415 - not each torch has it

    def summed(_: object, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        return sum_.of(bucket.buffer())

    # Rank 0 sends whatever has changed, so torch need not send the weights.
    ranks = DistributedDataParallel(
        _WithSpare(layers), init_sync=False, find_unused_parameters=True
    )
    ranks.register_comm_hook(None, summed)
    return ranks
