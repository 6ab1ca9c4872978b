"""A device of the simulated runs: the protocol's half as it is, and a network of four weights."""

import zlib

import numpy as np
from numpy.typing import NDArray

from runtime.protocol.device import DeviceSession
from runtime.protocol.events import (
    BackwardDone,
    CollectWeights,
    CommandArrived,
    DeviceCommand,
    DeviceEvent,
    ForwardDone,
    FrameArrived,
    FrameSent,
    LoadModel,
    OpenPass,
    PartCame,
    PassOpened,
    Prepare,
    Prepared,
    RunBackward,
    RunForward,
    SendFrame,
    SendReply,
    WeightsCollected,
)
from runtime.wire.chunks.inbox import numbers_of
from runtime.wire.commands import Ready
from runtime.wire.fields import Message
from runtime.wire.frames import Frame, StepId, decode_chunk, encode_chunks, spec_of

CHUNK_BYTES = 16
Weights = NDArray[np.float32]
Item = Message | bytes
"""A control message, or a chunk."""


def tensor(value: float) -> Weights:
    """Give the four weights that a run begins with."""
    return np.linspace(value, 2 * value, 4, dtype=np.float32)


SPEC, HALF = spec_of(tensor(1)), spec_of(tensor(1)[:2])


def draw(device: str, step: StepId) -> Weights:
    """Draw the sample of a step; a turn that is tried again draws the same."""
    key = [zlib.crc32(device.encode()), step.round, step.epoch]
    key += [step.micro_batch] if step.micro_batch else []
    return np.random.default_rng(key).standard_normal(4).astype(np.float32)


def event_of(session: DeviceSession, item: Item) -> DeviceEvent | None:
    """Say what a device's half is to be told of a message; nothing of a chunk not asked for."""
    if isinstance(item, Message):
        return CommandArrived(item)  # type: ignore[arg-type]
    chunk, num_stale = decode_chunk(memoryview(item)), session.frames.num_stale
    frame = session.frames.add(chunk)
    if frame is not None:
        return FrameArrived("", frame)
    return PartCame(chunk.kind, chunk.step) if session.frames.num_stale == num_stale else None


class SimulatedDevice:
    """Takes what arrives, computes when it is let, and says what it sends."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._session = DeviceSession()
        self._work: list[DeviceCommand] = []
        self._replies: list[Message] = []
        self._frames: list[tuple[Frame, list[bytes]]] = []
        self._weights = self._change = tensor(0)
        self._is_computing = False
        self._updated: set[StepId] = set()

    def receive(self, item: Item) -> None:
        """Take a message."""
        event = event_of(self._session, item)
        if event is not None:
            self._do(event)

    def take(self) -> tuple[list[Message], list[tuple[Frame, list[bytes]]], bool]:
        """Give what is to be sent, and whether there is work that nobody is at."""
        said = self._replies, self._frames, bool(self._work) and not self._is_computing
        self._replies, self._frames = [], []
        self._is_computing |= said[2]
        return said

    def note_sent(self, frame: Frame) -> None:
        """Take note that the broker has a frame."""
        self._do(FrameSent(frame.kind, frame.step))

    def compute(self) -> None:
        """Do the next piece of work."""
        self._is_computing = False
        done: DeviceEvent | None = None
        while self._work and done is None:
            done = self._compute(self._work.pop(0))
        if done is not None:
            self._do(done)

    def _compute(self, command: DeviceCommand) -> DeviceEvent | None:
        match command:
            case Prepare(assignment):
                ready = Ready(
                    run=assignment.run, num_samples=1, num_held_out=0, label_dtype="|u1",
                    label_shape=(),
                )  # fmt: skip
                return Prepared(ready)
            case OpenPass(join):
                num_frames = join.micro_batches or (1 if join.aggregated is None else 2)
                part = SPEC if join.aggregated is None else HALF
                return PassOpened(join, (SPEC,), (part,), ((part,),) * (num_frames - 1))
            case LoadModel((weights,)):
                self._weights = weights.astype(np.float32)
            case RunForward(step):
                return ForwardDone(step, (draw(self._device, step) * self._weights,))
            case RunBackward(step, parts, is_last=is_last):
                gradient = np.concatenate(parts)
                assert step not in self._updated, f"{step} is applied twice"
                self._updated.add(step)
                change = np.float32(0.1) * gradient.astype(np.float32) * draw(self._device, step)
                self._change = self._change * np.float32(step.micro_batch > 0) + change
                if not is_last:
                    return BackwardDone(step)
                self._weights = self._weights - self._change
            case CollectWeights(step):
                return WeightsCollected(step, (self._weights,))
        return None

    def _do(self, event: DeviceEvent) -> None:
        for command in self._session.handle(event):
            match command:
                case SendReply(message):
                    self._replies.append(message)
                case SendFrame(frame, missing):
                    only = numbers_of(missing) if missing else None
                    chunks = encode_chunks(frame, chunk_bytes=CHUNK_BYTES, only=only)
                    self._frames.append((frame, list(chunks)))
                case _:
                    self._work.append(command)
