"""What a module is given: one tensor or several by name; numbers, or token ids and masks."""

import copy
import inspect
import itertools
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from runtime.errors import SettingsError
from runtime.models.dropout import set_dropout_keys
from runtime.models.graph.beforehand import is_lazy, other_floats
from runtime.models.graph.rows import Entry, Row
from runtime.models.graph.values import BATCHES
from runtime.models.sequence import Shape
from runtime.seeding.torch_generator import forked_generator

InputShapes = Shape | Mapping[str, Shape]
"""The shape of a sample, or the shapes of what it is made of."""
Given = torch.Tensor | dict[str, torch.Tensor]
_WHOLE_NUMBERS = ("ids", "mask")
"""What the names of token ids and masks have in them."""
MOST_TRIED = 4
"""Inputs of which every one is tried both as numbers and as whole numbers."""


@dataclass(frozen=True)
class Inputs:
    """How samples arrive at a module, and batches of two sizes to try it with."""

    row: Row
    batches: tuple[Given, ...]
    rows: tuple[torch.Tensor, ...]
    """The same batches as they travel."""
    outputs: object
    """What the module gives for the first batch, in training."""


def as_shapes(shape: object, *, name: str) -> InputShapes | None:
    """Read the shape of a sample, or the shapes by name of what it is made of."""
    if isinstance(shape, Mapping) and shape:
        # A single value, such as a user's id, has the shape [].
        found = {
            str(key): () if each in ([], ()) else _as_shape(each, name=name)
            for key, each in shape.items()
        }
        return {key: each for key, each in found.items() if each is not None}
    return _as_shape(shape, name=name)


def _as_shape(shape: object, *, name: str) -> Shape | None:
    if shape is None:
        return None
    if isinstance(shape, Sequence) and shape and all(isinstance(size, int) for size in shape):
        return tuple(shape)
    raise SettingsError(f"input_shape of {name} is {shape!r}; it has to be a list of whole numbers")


def call(module: nn.Module, given: object) -> object:
    """Run a module on what it takes: several inputs by their names, or as one dictionary."""
    if not isinstance(given, dict) or _takes_a_dictionary(module, given):
        return module(given)
    return module(**given)


def _takes_a_dictionary(module: nn.Module, given: Mapping[str, object]) -> bool:
    """Whether it has one argument for all inputs, and none of their names."""
    signature = inspect.signature(module.forward)
    try:
        signature.bind(**given)
    except TypeError:
        with suppress(TypeError):
            return bool(signature.bind(given))
    return False


def find_inputs(module: nn.Module, shapes: InputShapes, *, name: str) -> Inputs:
    """Try in which types the module takes its samples; SettingsError if in none."""
    reasons = []
    for row in _candidates(shapes):
        rows = tuple(_batch(row, size) for size in BATCHES)
        batches = tuple(row.unpack(batch)[0] for batch in rows)
        try:
            outputs = _run(module, batches[0])
        except DrawsElsewhereError as error:
            raise SettingsError(
                f"{name} draws random numbers by numpy or by Python's random in training, so that "
                "no rerun would be the same; draw them by torch, or switch it off (SpecAugment is "
                "by apply_spec_augment=False)"
            ) from error
        except Exception as error:  # whatever a user's own code raises
            reasons.append(str(error).partition("\n")[0] or type(error).__name__)
        else:
            return Inputs(row, batches, rows, outputs)
    stated = dict(shapes) if isinstance(shapes, Mapping) else shapes
    raise SettingsError(
        f"{name} does not run on samples of shape {stated}: {reasons[0]}; "
        + (
            other_floats(module)
            or "it has to make outputs of such samples alone, since targets and losses are the "
            "job's"
        )
    )


def draw_weights(module: nn.Module, shapes: InputShapes, *, name: str) -> None:
    """Have lazy layers draw their weights, by running the module on samples that it takes."""
    was_training = module.training
    for row in _candidates(shapes):
        with forked_generator(0):
            given = row.unpack(_batch(row, BATCHES[0]))[0]
        with suppress(Exception), torch.no_grad():  # whatever a user's own code raises
            call(module.eval(), given)
        module.train(was_training)
        if not is_lazy(module):
            return
    lazy = next(path for path, each in module.named_parameters() if nn.parameter.is_lazy(each))
    raise SettingsError(
        f"{name} does not run on samples of shape {shapes}, by which {lazy} would be drawn"
    )


def _candidates(shapes: InputShapes) -> list[Row]:
    """Numbers first; of several inputs, whole numbers where the names say so."""
    if not isinstance(shapes, Mapping):
        return [Row((Entry(shapes, dtype),)) for dtype in (torch.float32, torch.int64)]
    names = tuple(sorted(shapes))  # As samples have them, whoever made these.
    guessed = [_is_whole(name) for name in names]
    choices = [guessed, [False] * len(names), [True] * len(names)]
    if len(names) <= MOST_TRIED:  # Categories beside numbers, under whatever names.
        choices += [list(each) for each in itertools.product([False, True], repeat=len(names))]
    return [
        Row(tuple(_entry(shapes[n], is_whole=w) for n, w in zip(names, each, strict=True)), names)
        for each in choices
    ]


def _is_whole(name: str) -> bool:
    return any(word in name for word in _WHOLE_NUMBERS)


def _entry(shape: Shape, *, is_whole: bool) -> Entry:
    return Entry(tuple(shape), torch.int64 if is_whole else torch.float32)


def _batch(row: Row, size: int) -> torch.Tensor:
    """Samples of random numbers, and of ones and zeros for what are whole numbers."""
    parts = []
    for entry in row.entries:
        ones = torch.arange(entry.size).remainder(2).eq(0).float().expand(size, -1)
        is_whole = entry.dtype == torch.int64
        values = ones if is_whole else torch.randn(size, entry.size)
        parts.append(values.reshape(size, *entry.shape))
    return (
        parts[0] if not row.names else torch.cat([part.reshape(size, -1) for part in parts], dim=1)
    )


def _run(module: nn.Module, batch: Given) -> object:
    """What a copy of the module gives for a batch in training."""
    subject = copy.deepcopy(module).train()
    set_dropout_keys(subject, [((0,), BATCHES[0])])
    before = _global_draws()
    with torch.no_grad():
        outputs = call(subject, tree_map_only(torch.Tensor, torch.clone, batch))
    if before != _global_draws():
        raise DrawsElsewhereError
    return outputs


class DrawsElsewhereError(Exception):
    """A module draws by a generator that all threads of the process share."""


def _global_draws() -> tuple[bytes, int, object]:
    """How far numpy's and Python's own generators are."""
    _, keys, position, *_ = np.random.get_state()  # noqa: NPY002 - it is looked at, not drawn from
    return np.asarray(keys).tobytes(), int(position), random.getstate()
