"""How smashed data and outputs of inference travel; the same on both ends."""

from collections.abc import Sequence

from runtime.inference.half import Floats, Shape
from runtime.wire.chunks.questions import InferenceRequest
from runtime.wire.codecs.names import TurnCodecs
from runtime.wire.codecs.turn import TurnCoder
from runtime.wire.frames import FrameKind, StepId, Tensor, TensorSpec, body_bytes

MOST_BYTES = 64_000_000
"""Of one batch's smashed data, and of its outputs: a server holds a few such batches at once."""


def spec(num_samples: int, shape: Shape) -> TensorSpec:
    """Give the spec of a batch as it is."""
    return TensorSpec("<f4", (num_samples, *shape))


def step_of(request: InferenceRequest) -> StepId:
    """Name the step of a request's frames: the run has its number, the round its batch's."""
    return StepId(request.request, request.batch, 0, 0)


def smashed_specs(request: InferenceRequest, shape: Shape) -> tuple[TensorSpec, ...]:
    """Give what travels of a batch whose samples have this shape; SettingsError for no codec."""
    return _coder(request).specs(FrameKind.SMASHED, [spec(request.num_samples, shape)])


def encode_smashed(request: InferenceRequest, smashed: Floats, device: str) -> tuple[Tensor, ...]:
    """Give what travels; what is random in it follows from the device and the batch."""
    return _coder(request).encode(FrameKind.SMASHED, [smashed], device=device, epoch=0)


def decode_smashed(request: InferenceRequest, parts: Sequence[Tensor], shape: Shape) -> Floats:
    """Read what travelled, which has been compared with its specs."""
    plain = [spec(request.num_samples, shape)]
    [smashed] = _coder(request).decode(FrameKind.SMASHED, parts, plain)
    return smashed.astype("<f4", copy=False)


def why_too_large(request: InferenceRequest, smashed: Shape, outputs: Shape) -> str:
    """Say that a batch is more than is taken at once; nothing if it is not."""
    for what, shape in (("smashed data", smashed), ("outputs", outputs)):
        num_bytes = body_bytes([spec(request.num_samples, shape)])
        if num_bytes > MOST_BYTES:
            return (
                f"a batch of {request.num_samples} samples has {num_bytes / 1e6:.0f} MB of {what}, "
                f"and {MOST_BYTES / 1e6:.0f} MB are taken; take a smaller --batch-size"
            )
    return ""


def _coder(request: InferenceRequest) -> TurnCoder:
    return TurnCoder(TurnCodecs(smashed=request.codec), seed=0, round_=request.batch)
