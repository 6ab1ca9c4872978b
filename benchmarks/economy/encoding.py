"""What encoding costs a device: beside its forward pass of LeNet at POOL1, on one core."""

from collections.abc import Callable
from time import thread_time

import numpy as np
import torch

from runtime.models.device_side import DeviceNetwork
from runtime.wire.codecs.names import TurnCodecs
from runtime.wire.codecs.offered import choice_of
from runtime.wire.codecs.turn import TurnCoder
from runtime.wire.commands import Assignment, OptimizerSpec
from runtime.wire.frames import FrameKind

NAMES = ("fp16", "bf16", "int8", "int4", "topk:0.1", "randtopk:0.1", "int8+zlib")
POOL1, BATCH, REPETITIONS = 3, 16, 400
SHAPE = (1, 28, 28)


def encoding_lines() -> list[str]:
    """Time both in turn, by the least processor time of each: others on this machine add to it."""
    torch.set_num_threads(1)
    side = DeviceNetwork(_assignment(), sample_shape=SHAPE).open(POOL1)
    x = np.random.default_rng(0).standard_normal((BATCH, *SHAPE), np.float32)
    smashed = side.forward(x, dropout_key=(0,))
    lines = [f"{'':<14}{'bytes':>8}{'encode ms':>11}{'of forward':>12}{'at most off':>13}"]
    for name in NAMES:
        coder = TurnCoder(TurnCodecs(smashed=name), seed=0, round_=1)

        def encode(coder: TurnCoder = coder) -> object:
            return coder.encode(FrameKind.SMASHED, (smashed,), device="pi-1", epoch=0)

        forward_s, encode_s = _least(lambda: side.forward(x, dropout_key=(0,)), encode)
        num_bytes = sum(part.nbytes for part in encode())  # type: ignore[attr-defined]
        error = choice_of(name).codec.relative_error
        lines.append(
            f"{name:<14}{num_bytes:>8}{encode_s * 1e3:>11.3f}{encode_s / forward_s:>12.1%}"
            f"{'no bound' if error == 1 else format(error, '.4f'):>13}"
        )
    return lines


def _assignment() -> Assignment:
    return Assignment(
        run=0,
        network="lenet",
        options={},
        loss="cross_entropy",
        seed=0,
        batch_size=BATCH,
        held_out=0.0,
        max_evaluation_samples=1,
        num_classes=10,
        optimizer=OptimizerSpec(),
        carry_state=True,
    )


def _least(*works: Callable[[], object]) -> list[float]:
    taken_s = np.empty((REPETITIONS, len(works)))
    for repetition in range(REPETITIONS):
        for place, work in enumerate(works):
            start_s = thread_time()
            work()
            taken_s[repetition, place] = thread_time() - start_s
    return list(taken_s.min(axis=0))
