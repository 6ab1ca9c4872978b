"""Spans of what a device does for a step, if its owner asked for them."""

from time import perf_counter

from runtime.protocol.events import Predict, RunBackward, RunForward, TrainLocally, Work
from runtime.service.spans import Attributes, is_recording, part_of
from runtime.wire.frames import FrameKind, StepId

_NAMES: dict[type, str] = {
    RunForward: "forward",
    RunBackward: "backward",
    TrainLocally: "train locally",
    Predict: "predict",
}
_FRAMES = {
    FrameKind.MODEL: "download model",
    FrameKind.GRADIENT: "download gradient",
    FrameKind.GRAPHS: "download graphs",
    FrameKind.SMASHED: "upload smashed data",
    FrameKind.WEIGHTS: "upload model",
}


def record_work(device: str, command: Work, *, since_s: float) -> None:
    """Record what was computed since then, by `perf_counter`."""
    if not is_recording() or not isinstance(
        command, RunForward | RunBackward | TrainLocally | Predict
    ):
        return
    seconds, step = perf_counter() - since_s, command.step
    attributes: Attributes = {"device": device, "micro_batch": step.micro_batch}
    part_of(step, _NAMES[type(command)], seconds=seconds, attributes=attributes)


def record_transfer(
    device: str, kind: FrameKind, step: StepId, *, seconds: float, num_bytes: int
) -> None:
    """Record a frame that has been sent, or has arrived, and took so long."""
    if not is_recording():
        return
    attributes: Attributes = {"device": device, "bytes": num_bytes, "micro_batch": step.micro_batch}
    part_of(step, _FRAMES[kind], seconds=seconds, attributes=attributes)
