"""What a round's frames take when tensors travel encoded, by cut; and which codec a round takes.

The bits are those of the frames' bodies, to the byte where the shapes of tensors are known; where a
scenario states bytes alone, a sample is taken as one row. Compressed without loss a frame may be
shorter than this, by what its numbers are; a run learns that from its rounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from profiles.cuts import CutTable, LayerCost
from profiles.phases import Phase
from profiles.units import BITS_PER_BYTE, Counts, Floats
from runtime.wire.codecs.names import TurnCodecs
from runtime.wire.codecs.offered import choice_of
from runtime.wire.codecs.turn import TurnCoder
from runtime.wire.frames import FrameKind, TensorSpec, body_bytes
from runtime.wire.micro_batches import parted

_FLOAT = "<f4"
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class WireTable:
    """Bits of each frame of one device at each cut, [cut], and what encoding takes."""

    codecs: TurnCodecs
    smashed_bits: Floats
    """Of a mini-batch, without its labels."""
    gradient_bits: Floats
    model_bits: Floats
    weights_bits: Floats
    encode_flop: Floats
    """Of a mini-batch on the device."""
    samples: tuple[TensorSpec, ...]
    """The smashed data of a mini-batch at each cut, [cut]."""
    _known: dict[int, dict[FrameKind, Floats]] = field(
        default_factory=dict, init=False, compare=False
    )

    @classmethod
    def of(cls, cuts: CutTable, codecs: TurnCodecs, *, batch_size: int) -> "WireTable":
        """Work it out from the shapes of a network's tensors."""
        coder = TurnCoder(codecs, seed=0, round_=0)
        samples = [_sample_spec(cuts, cut, batch_size) for cut in range(cuts.num_layers + 1)]
        values = np.array([spec.num_bytes / _FLOAT_BYTES for spec in samples])
        gradient_bits = _bits(coder, FrameKind.GRADIENT, [[spec] for spec in samples])
        gradient_bits[~cuts.learns] = 0.0
        models = _models(cuts)
        return cls(
            codecs=codecs,
            smashed_bits=_bits(coder, FrameKind.SMASHED, [[spec] for spec in samples]),
            gradient_bits=gradient_bits,
            model_bits=_bits(coder, FrameKind.MODEL, models),
            weights_bits=_bits(coder, FrameKind.WEIGHTS, models),
            encode_flop=values * choice_of(codecs.smashed).codec.flop_per_value,
            samples=tuple(samples),
        )

    def transfer_bits(
        self,
        *,
        cut: int | Counts,
        label_bits: float,
        loss_on_device: bool,
        micro_batches: int = 1,
    ) -> dict[Phase, Floats]:
        """Bits by phase, shaped as `cut` is; `label_bits` are those of a mini-batch.

        Of all micro-batches together: each has the numbers that a group of values shares.
        """
        models = {
            Phase.DISTRIBUTE: np.asarray(self.model_bits[cut]),
            Phase.MODEL_UPLOAD: np.asarray(self.weights_bits[cut]),
        }
        if loss_on_device:
            return models
        bits = self._parted_bits(micro_batches)
        return models | {
            Phase.UPLOAD: np.asarray(bits[FrameKind.SMASHED][cut] + label_bits),
            Phase.DOWNLOAD: np.asarray(bits[FrameKind.GRADIENT][cut]),
        }

    def _parted_bits(self, micro_batches: int) -> dict[FrameKind, Floats]:
        """Bits of a mini-batch that goes in so many parts, [cut]."""
        whole = {FrameKind.SMASHED: self.smashed_bits, FrameKind.GRADIENT: self.gradient_bits}
        if micro_batches == 1:
            return whole
        if micro_batches not in self._known:
            coder = TurnCoder(self.codecs, seed=0, round_=0)
            rows = parted(self.samples[0].shape[0], micro_batches)
            parts = [[_of_rows(each, len(part)) for each in self.samples] for part in rows]
            self._known[micro_batches] = {
                kind: np.where(
                    bits > 0, sum(_bits(coder, kind, [[one] for one in part]) for part in parts), 0
                )
                for kind, bits in whole.items()
            }
        return self._known[micro_batches]


def _bits(coder: TurnCoder, kind: FrameKind, frames: Sequence[Sequence[TensorSpec]]) -> Floats:
    """Bits of a frame's body at each cut, [cut]; of a frame without tensors nothing."""
    sizes = [body_bytes(coder.specs(kind, specs)) if specs else 0 for specs in frames]
    return np.array(sizes, dtype=np.float64) * BITS_PER_BYTE


def _of_rows(spec: TensorSpec, count: int) -> TensorSpec:
    return replace(spec, shape=(count, *spec.shape[1:]))


def _sample_spec(cuts: CutTable, cut: int, batch_size: int) -> TensorSpec:
    """The smashed data of a mini-batch; one row a sample where the shape is not known."""
    layer = cuts.layers[cut - 1] if cut else None
    shape = layer.activation_shape if layer else cuts.input_shape
    num_bytes = layer.activation_bytes if layer else cuts.input_bytes
    return TensorSpec(_FLOAT, (batch_size, *(shape or (round(num_bytes / _FLOAT_BYTES),))))


def _models(cuts: CutTable) -> list[list[TensorSpec]]:
    """The tensors of the device-side model at each cut."""
    models: list[list[TensorSpec]] = [[]]
    for layer in cuts.layers:
        models.append([*models[-1], *_state(layer)])
    return models


def _state(layer: LayerCost) -> list[TensorSpec]:
    """The tensors of a layer; as one row of numbers where their shapes are not known."""
    if not layer.state_shapes:
        num_values = round(layer.state_bytes / _FLOAT_BYTES)
        return [TensorSpec(_FLOAT, (1, num_values))] if num_values else []
    floats = [TensorSpec(_FLOAT, shape) for shape in layer.state_shapes]
    others = layer.state_bytes - sum(spec.num_bytes for spec in floats)
    return [*floats, TensorSpec("|u1", (others,))] if others > 0 else floats
