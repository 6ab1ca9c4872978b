"""The bytes that a simulated cluster would send over a bus."""

import math
from collections.abc import Sequence

from runtime.wire.frames import StepId, Tensor, body_bytes, header_of, specs_of


class Traffic:
    """Bytes of frames with all their headers, counted as the coordinator of a real run counts.

    A device-side model that a cluster is given is one message, however many devices hear it.
    """

    def __init__(self, *, chunk_bytes: int) -> None:
        self._chunk_bytes = chunk_bytes
        self.up_bytes = 0
        self.down_bytes = 0

    def send_up(self, tensors: Sequence[Tensor], *, micro_batch: int = 0) -> None:
        """Count a frame from a device."""
        self.up_bytes += self._frame_bytes(tensors, micro_batch)

    def send_down(self, tensors: Sequence[Tensor], *, micro_batch: int = 0) -> None:
        """Count a frame from the coordinator."""
        self.down_bytes += self._frame_bytes(tensors, micro_batch)

    def _frame_bytes(self, tensors: Sequence[Tensor], micro_batch: int) -> int:
        body = body_bytes(specs_of(tensors))
        num_chunks = max(1, math.ceil(body / self._chunk_bytes))
        return body + num_chunks * header_of(StepId(0, 0, 0, 0, micro_batch)).size
