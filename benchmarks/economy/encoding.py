"""What encoding costs a device: beside LeNet's forward pass at POOL1, on one core."""

from collections.abc import Callable
from time import perf_counter

import numpy as np
import torch

from runtime.models.load import load_network, split
from runtime.wire.codecs.offered import choice_of
from runtime.wire.codecs.turn import TurnCodecs, TurnCoder
from runtime.wire.frames import FrameKind

NAMES = ("fp16", "bf16", "int8", "int4", "topk:0.1", "randtopk:0.1", "int8+zlib")
BATCH, REPETITIONS = 16, 400


def encoding_lines() -> list[str]:
    """Time both in turn, so that whatever else this machine does slows both."""
    torch.set_num_threads(1)
    layers, _ = split(load_network("lenet", {}, seed=0), 3)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((BATCH, 1, 28, 28), np.float32))
    smashed = layers.train()(x).detach().numpy()
    lines = [f"{'':<14}{'bytes':>8}{'encode ms':>11}{'of forward':>12}{'at most off':>13}"]
    for name in NAMES:
        coder = TurnCoder(TurnCodecs(smashed=name), seed=0, round_=1)

        def encode(coder: TurnCoder = coder) -> object:
            return coder.encode(FrameKind.SMASHED, (smashed,), device="pi-1", epoch=0)

        forward_s, encode_s = _medians(lambda: layers(x), encode)
        num_bytes = sum(part.nbytes for part in encode())  # type: ignore[attr-defined]
        error = choice_of(name).codec.relative_error
        lines.append(
            f"{name:<14}{num_bytes:>8}{encode_s * 1e3:>11.3f}{encode_s / forward_s:>12.1%}"
            f"{'no bound' if error == 1 else format(error, '.4f'):>13}"
        )
    return lines


def _medians(*works: Callable[[], object]) -> list[float]:
    taken_s = np.empty((REPETITIONS, len(works)))
    for repetition in range(REPETITIONS):
        for place, work in enumerate(works):
            start_s = perf_counter()
            work()
            taken_s[repetition, place] = perf_counter() - start_s
    return list(np.median(taken_s, axis=0))
