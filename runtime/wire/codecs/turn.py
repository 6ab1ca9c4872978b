"""A turn's frames as they travel: which tensors of each kind are encoded, and how.

Smashed data and gradients are encoded, labels never. Of device-side models the tensors with two
axes or more are: biases and statistics are few, and travel as they are. A device sends its model as
the difference from the one it was given, and the coordinator adds that to its own: so whatever a
model lost on its way down is carried there, and no turn adds to it.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.seeding import Purpose, step_key
from runtime.wire.codecs.codec import Layout, Shape, layout_of_samples, layout_of_weights
from runtime.wire.codecs.lossless import deflate, deflated_specs, inflate
from runtime.wire.codecs.names import TurnCodecs
from runtime.wire.codecs.offered import Choice, choice_of
from runtime.wire.frames import FrameKind, Tensor, TensorSpec, may_be_shorter

_OF_SAMPLES = (FrameKind.SMASHED, FrameKind.GRADIENT)


class TurnCoder:
    """Encodes and decodes the frames of one turn; equal on the device and at the coordinator."""

    def __init__(self, codecs: TurnCodecs | None, *, seed: int, round_: int) -> None:
        """SettingsError if a codec is not known here. None: everything travels as it is."""
        names = codecs or TurnCodecs()
        self._choices: dict[FrameKind, Choice] = {
            FrameKind.MODEL: choice_of(names.model),
            FrameKind.SMASHED: choice_of(names.smashed),
            FrameKind.GRADIENT: choice_of(names.gradient),
            FrameKind.WEIGHTS: choice_of(names.weights),
        }
        self._seed, self._round = seed, round_

    def is_raw(self, kind: FrameKind) -> bool:
        """Whether frames of a kind travel as they are."""
        return self._choices[kind].is_raw

    def specs(self, kind: FrameKind, plain: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        """Shapes of what travels instead of tensors of these shapes."""
        choice = self._choices[kind]
        if choice.is_raw:
            return tuple(plain)
        parts = tuple(
            part
            for place, spec in enumerate(plain)
            for part in (
                choice.codec.specs(_layout(kind, spec.shape))
                if _is_coded(kind, place, spec)
                else (spec,)
            )
        )
        return deflated_specs(parts) if choice.is_deflated and parts else parts

    def encode(
        self,
        kind: FrameKind,
        tensors: Sequence[Tensor],
        *,
        device: str,
        epoch: int,
        micro_batch: int = 0,
        before: Sequence[Tensor] = (),
    ) -> tuple[Tensor, ...]:
        """Give what travels; what is random follows from who sends it, and in which step.

        `before` is the model that the device was given, of its weights.
        """
        choice = self._choices[kind]
        if choice.is_raw:
            return tuple(tensors)
        key = step_key(
            Purpose.ROUNDING, seed=self._seed, device=device, round_=self._round, epoch=epoch
        )
        parts: list[Tensor] = []
        for place, tensor in enumerate(tensors):
            if tensor.dtype != np.float32 or not _is_suited(kind, place, tensor.shape):
                parts.append(tensor)
                continue
            numbers = tensor.astype(np.float32, copy=False)
            if kind is FrameKind.WEIGHTS:
                numbers = np.subtract(numbers, before[place], dtype=np.float32)
            address = (*key, kind, place, micro_batch)
            parts += choice.codec.encode(numbers, _layout(kind, tensor.shape), address)
        return tuple(deflate(parts) if choice.is_deflated and parts else parts)

    def unpacked(
        self, kind: FrameKind, sent: Sequence[Tensor], plain: Sequence[TensorSpec]
    ) -> tuple[Tensor, ...]:
        """Give the parts of what travels, as a receiver's inbox does."""
        specs = self.specs(kind, plain)
        return inflate(sent, specs) if may_be_shorter(specs) else tuple(sent)

    def decode(
        self,
        kind: FrameKind,
        parts: Sequence[Tensor],
        plain: Sequence[TensorSpec],
        *,
        before: Sequence[Tensor] = (),
    ) -> tuple[Tensor, ...]:
        """Give tensors of the plain shapes; the parts are checked, and not compressed any more.

        `before` is the coordinator's own model, of a device's weights.
        """
        choice = self._choices[kind]
        if choice.is_raw:
            return tuple(parts)
        tensors, left = list[Tensor](), list(parts)
        for place, spec in enumerate(plain):
            if not _is_coded(kind, place, spec):
                tensors.append(left.pop(0))
                continue
            layout = _layout(kind, spec.shape)
            num_parts = len(choice.codec.specs(layout))
            numbers = choice.codec.decode(left[:num_parts], layout)
            del left[:num_parts]
            if kind is FrameKind.WEIGHTS:
                numbers = np.add(numbers, before[place], dtype=np.float32)
            tensors.append(numbers)
        return tuple(tensors)


def whole_gradient(parts: Sequence[Tensor]) -> NDArray[np.float32]:
    """Join a gradient that came in several frames, by samples."""
    numbers = [part.astype(np.float32, copy=False) for part in parts]
    return numbers[0] if len(numbers) == 1 else np.concatenate(numbers)


def together(devices: Iterable[str]) -> str:
    """Name the devices that are given one model: what is random in it follows from who they are."""
    return ",".join(sorted(devices))


def _is_coded(kind: FrameKind, place: int, spec: TensorSpec) -> bool:
    return spec.dtype == "<f4" and _is_suited(kind, place, spec.shape)


def _is_suited(kind: FrameKind, place: int, shape: Shape) -> bool:
    if kind is FrameKind.SMASHED:
        return place == 0
    return kind is FrameKind.GRADIENT or len(shape) >= 2


def _layout(kind: FrameKind, shape: Shape) -> Layout:
    return layout_of_samples(shape) if kind in _OF_SAMPLES else layout_of_weights(shape)
