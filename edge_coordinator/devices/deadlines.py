"""What a device is asked for, and what a plan or its own past says of the answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from profiles.phases import Phase, SecondsByPhase


class Answer(StrEnum):
    """What a device is asked for; each takes seconds of its own."""

    JOINED = "joined"
    FIRST = "first"
    """To the device-side model: smashed data of the first local epoch."""
    NEXT = "next"
    """To a gradient: smashed data of the next local epoch."""
    LAST = "last"
    """To the last gradient: the device-side model."""
    WHOLE = "whole"
    """To the whole network, where the loss is on the device: the trained network."""
    EVALUATION = "evaluation"


@dataclass(frozen=True)
class Question:
    """One request to several devices: which answer, and what the plan predicts of it."""

    answer: Answer
    predicted_s: Mapping[str, float]
    """By device; of those that the plan predicts."""
    num_devices: int = 1
    """How many may be sending their answers at a time, on what may be one link."""


@dataclass(frozen=True)
class Usual:
    """What an answer of a device takes, and how far it strays from what was expected of it."""

    seconds: float
    deviation_s: float


def predicted_answers(phases: SecondsByPhase, *, local_epochs: int) -> dict[Answer, float]:
    """Add up the phases of each answer; the server's are over before a device is asked."""
    distribute_s, model_upload_s = phases[Phase.DISTRIBUTE], phases[Phase.MODEL_UPLOAD]
    forward_s = phases[Phase.FORWARD] + phases[Phase.UPLOAD]
    backward_s = phases[Phase.DOWNLOAD] + phases[Phase.BACKWARD]
    return {
        Answer.FIRST: distribute_s + forward_s,
        Answer.NEXT: backward_s + forward_s,
        Answer.LAST: backward_s + model_upload_s,
        Answer.WHOLE: distribute_s + local_epochs * (forward_s + backward_s) + model_upload_s,
    }
