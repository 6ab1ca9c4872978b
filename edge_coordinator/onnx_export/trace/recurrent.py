"""Recurrent layers of torch as scans, with their gradients.

What does not wait for the step before is done for all steps at once: the products with the inputs,
and in the way back the slopes of the gates and the gradients of the weights.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_coordinator.onnx_export.trace.scan import Tensors, named_step, scan
from runtime.models.recurrent import SeededRecurrent


def unroll_recurrent(module: nn.Module) -> None:
    """Let all recurrent layers of a module run as scans, in place."""
    for layer in module.modules():
        if isinstance(layer, nn.RNNBase) and not layer.proj_size:
            vars(layer)["forward"] = partial(_run, layer)


def _run(layer: nn.RNNBase, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:  # noqa: ANN401
    """Run as torch's layer does."""
    if not isinstance(x, Tensor) or x.dim() != 3:
        raise NotImplementedError("a recurrent layer on anything but a batch of equal lengths")
    is_lstm = layer.mode == "LSTM"
    steps = x.transpose(0, 1) if layer.batch_first else x
    given = list(state) if is_lstm and state is not None else [state] * (2 if is_lstm else 1)
    num_directions = 2 if layer.bidirectional else 1
    ends: list[Tensors] = []
    for index in range(layer.num_layers):
        if index and isinstance(layer, SeededRecurrent):
            steps = layer.drops[index - 1](steps.transpose(0, 1)).transpose(0, 1)
        outputs = []
        for direction in range(num_directions):
            row = index * num_directions + direction
            own = [_first_state(layer, each, steps, row) for each in given]
            output, last = _direction(layer, steps, own, index, is_reversed=direction == 1)
            outputs.append(output)
            ends.append(last)
        steps = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
    joined = [torch.cat([*parts]) for parts in zip(*ends, strict=True)]
    steps = steps.transpose(0, 1) if layer.batch_first else steps
    return steps, (joined[0], joined[1]) if is_lstm else joined[0]


def _first_state(layer: nn.RNNBase, state: Tensor | None, steps: Tensor, row: int) -> Tensor:
    if state is None:
        return steps.new_zeros(1, steps.shape[1], layer.hidden_size)
    return state.narrow(0, row, 1)


def _direction(
    layer: nn.RNNBase, steps: Tensor, state: Tensors, index: int, *, is_reversed: bool
) -> tuple[Tensor, Tensors]:
    """One layer in one direction: outputs [step, sample, feature], and its last states."""
    suffix = f"l{index}_reverse" if is_reversed else f"l{index}"
    w_input, w_hidden = (getattr(layer, f"weight_{of}_{suffix}") for of in ("ih", "hh"))
    biases = [getattr(layer, f"bias_{of}_{suffix}") for of in ("ih", "hh") if layer.bias]
    if is_reversed:
        steps = steps.flip(0)
    if layer.mode == "GRU":
        inputs = functional.linear(steps, w_input, *biases[:1])
        hidden = (_Gru.apply(inputs, *state, w_hidden, *(biases[1:] or [None])),)  # type: ignore[no-untyped-call]
    else:
        inputs = functional.linear(steps, w_input, sum(biases) if biases else None)
        if layer.mode == "LSTM":
            hidden = _Lstm.apply(inputs, *state, w_hidden)  # type: ignore[no-untyped-call]
        else:
            is_relu = layer.mode == "RNN_RELU"
            hidden = (_Rnn.apply(inputs, *state, w_hidden, is_relu),)  # type: ignore[no-untyped-call]
    output = hidden[0].flip(0) if is_reversed else hidden[0]
    return output, [each[-1:] for each in hidden]


@named_step
def lstm(rows: Tensors, carried: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
    """Hidden state, cell and the gates before their functions, [input, forget, cell, output]."""
    gates = rows[0] + torch.bmm(carried[0], constants[0])
    i, f, g, o = gates.chunk(4, -1)
    cell = f.sigmoid() * carried[1] + i.sigmoid() * g.tanh()
    hidden = o.sigmoid() * cell.tanh()
    return [hidden, cell], [hidden, cell, gates]


@named_step
def lstm_backward(rows: Tensors, carried: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
    """Gradients of the gates, and of the cell before."""
    of_hidden, slopes, slope, forget, *of_cell = rows
    hidden = of_hidden + carried[0]
    cell = carried[1] + hidden * slope
    cell = cell + of_cell[0] if of_cell else cell
    gates = torch.cat([cell, cell, cell, hidden], -1) * slopes
    before = cell * forget
    return [torch.bmm(gates, constants[0]), before], [gates, before]


class _Lstm(torch.autograd.Function):
    """From gates' inputs [step, sample, 4 x hidden] to hidden states and cells."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        hidden, cell, weight = given
        steps, cells, gates = scan("lstm", [inputs], [hidden, cell], [weight.t()[None]], False)
        ctx.save_for_backward(hidden, cell, weight, steps, cells, gates)
        ctx.set_materialize_grads(False)
        return steps, cells

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        hidden, cell, weight, steps, cells, gates = ctx.saved_tensors
        i, f, o = (gates.chunk(4, -1)[index].sigmoid() for index in (0, 1, 3))
        g, squashed = gates.chunk(4, -1)[2].tanh(), cells.tanh()
        before = torch.cat([cell, cells[:-1]])
        slopes = [g * i * (1 - i), before * f * (1 - f), i * (1 - g * g), squashed * o * (1 - o)]
        of_hidden, of_cell = gradients
        of_hidden = torch.zeros_like(steps) if of_hidden is None else of_hidden
        sequences = [of_hidden, torch.cat(slopes, -1), o * (1 - squashed * squashed), f]
        sequences += [] if of_cell is None else [of_cell]
        zeros = [torch.zeros_like(hidden), torch.zeros_like(cell)]
        of_gates, of_before = scan("lstm_backward", sequences, zeros, [weight[None]], True)
        of_weight = _weight_gradient(of_gates, hidden, steps)
        return of_gates, torch.matmul(of_gates[:1], weight), of_before[:1], of_weight


@named_step
def gru(rows: Tensors, carried: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
    """Hidden state, and what the gates get of the one before, [reset, update, new]."""
    (before,), weight, *bias = carried, *constants
    of_before = torch.bmm(before, weight)
    of_before = of_before + bias[0] if bias else of_before
    _, update, new = _gru_gates(rows[0], of_before)
    hidden = new + update * (before - new)
    return [hidden], [hidden, of_before]


def _gru_gates(inputs: Tensor, of_before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    (xr, xz, xn), (hr, hz, hn) = inputs.chunk(3, -1), of_before.chunk(3, -1)
    reset, update = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    return reset, update, (xn + reset * hn).tanh()


@named_step
def gru_backward(rows: Tensors, carried: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
    """Gradients of the hidden state, of what the gates got of the one before, and of that."""
    of_hidden, slopes, update = rows
    hidden = of_hidden + carried[0]
    gates = torch.cat([hidden, hidden, hidden], -1) * slopes
    before = torch.bmm(gates, constants[0]) + hidden * update
    return [before], [hidden, gates, before]


class _Gru(torch.autograd.Function):
    """From gates' inputs [step, sample, 3 x hidden] to hidden states."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, *given: Any) -> Tensor:  # noqa: ANN401
        hidden, weight, bias = given
        constants = [weight.t()[None], *([] if bias is None else [bias[None, None]])]
        steps: Tensor
        steps, of_before = scan("gru", [inputs], [hidden], constants, False)
        ctx.save_for_backward(inputs, hidden, weight, steps, of_before)
        ctx.has_bias = bias is not None
        return steps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        inputs, hidden, weight, steps, of_before = ctx.saved_tensors
        reset, update, new = _gru_gates(inputs, of_before)
        before = torch.cat([hidden, steps[:-1]])
        to_new = (1 - update) * (1 - new * new)
        to_update = (before - new) * update * (1 - update)
        to_reset = to_new * of_before.chunk(3, -1)[2] * reset * (1 - reset)
        slopes = torch.cat([to_reset, to_update, to_new * reset], -1)
        sequences, zeros = [gradients[0], slopes, update], [torch.zeros_like(hidden)]
        found = scan("gru_backward", sequences, zeros, [weight[None]], True)
        of_hidden, of_gates, of_first = found
        of_inputs = [of_hidden * each for each in (to_reset, to_update, to_new)]
        of_bias = of_gates.sum([0, 1]) if ctx.has_bias else None
        of_weight = _weight_gradient(of_gates, hidden, steps)
        return torch.cat(of_inputs, -1), of_first[:1], of_weight, of_bias


@named_step
def rnn_tanh(rows: Tensors, carried: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
    """Hidden state of a plain recurrent layer."""
    hidden = (rows[0] + torch.bmm(carried[0], constants[0])).tanh()
    return [hidden], [hidden]


@named_step
def rnn_relu(rows: Tensors, carried: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
    """The same with the other function."""
    hidden = (rows[0] + torch.bmm(carried[0], constants[0])).relu()
    return [hidden], [hidden]


@named_step
def rnn_backward(rows: Tensors, carried: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
    """Gradient of what the function was given."""
    inputs = (rows[0] + carried[0]) * rows[1]
    return [torch.bmm(inputs, constants[0])], [inputs]


class _Rnn(torch.autograd.Function):
    """From inputs [step, sample, hidden] to hidden states."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, *given: Any) -> Tensor:  # noqa: ANN401
        hidden, weight, is_relu = given
        step = "rnn_relu" if is_relu else "rnn_tanh"
        steps: Tensor
        (steps,) = scan(step, [inputs], [hidden], [weight.t()[None]], False)
        ctx.save_for_backward(hidden, weight, steps)
        ctx.is_relu = is_relu
        return steps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        hidden, weight, steps = ctx.saved_tensors
        slopes = (steps > 0).to(steps.dtype) if ctx.is_relu else 1 - steps * steps
        sequences, zeros = [gradients[0], slopes], [torch.zeros_like(hidden)]
        (of_inputs,) = scan("rnn_backward", sequences, zeros, [weight[None]], True)
        of_first = torch.matmul(of_inputs[:1], weight)
        return of_inputs, of_first, _weight_gradient(of_inputs, hidden, steps), None


def _weight_gradient(of_gates: Tensor, first: Tensor, steps: Tensor) -> Tensor:
    """Of the hidden states' weights: from each step's gates and the state before it."""
    before = torch.cat([first, steps[:-1]])
    flat: Sequence[Tensor] = [each.flatten(0, 1) for each in (of_gates, before)]
    return torch.mm(flat[0].t(), flat[1])
