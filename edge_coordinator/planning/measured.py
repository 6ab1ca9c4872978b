"""What was measured of a device's turn, taken apart into the phases of the latency model.

The coordinator sees how long each answer took: the first (distribution, forward, upload), those
in between (download, backward, forward, upload) and the last (download, backward, upload of the
model). The device says how much of this it computed. What remains went over the link, or was
spent waiting there, and is divided in proportion to the prediction: so that the phases of every
answer add up to what the answer took.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profiles.phases import Phase
from profiles.units import Floats


@dataclass(frozen=True)
class DeviceTurn:
    """What is known of one device's part in a cluster's turn."""

    answers_s: Sequence[float]
    """From each request to its answer: the model, then the gradient of each local epoch."""
    server_s: float
    """Of the server in one local epoch, this device's part."""
    forward_s: float | None
    """Of one local epoch, as the device measured it; None if it did not say."""
    backward_s: float | None
    local_epochs: int
    loss_on_device: bool


def measured_phases(turn: DeviceTurn, *, predicted_s: Floats) -> Floats:
    """Seconds of each phase in one local epoch, [phase]; NaN where nothing is known.

    Of a device that did not come to the end of its turn nothing is: it may have computed, and
    said so, but which of its answers is missing cannot be seen here.
    """
    measured_s = np.full(len(Phase), np.nan)
    num_answers = 1 if turn.loss_on_device else turn.local_epochs + 1
    is_whole = len(turn.answers_s) == num_answers
    if not is_whole or turn.forward_s is None or turn.backward_s is None:
        return measured_s
    measured_s[Phase.FORWARD], measured_s[Phase.BACKWARD] = turn.forward_s, turn.backward_s
    if turn.loss_on_device:
        _divide_local(measured_s, turn, predicted_s=predicted_s)
        return measured_s
    measured_s[Phase.SERVER] = turn.server_s
    first_s, *between_s, last_s = turn.answers_s
    forward_s, backward_s = turn.forward_s, turn.backward_s
    first = _divided(first_s - forward_s, (Phase.DISTRIBUTE, Phase.UPLOAD), predicted_s)
    last = _divided(last_s - backward_s, (Phase.DOWNLOAD, Phase.MODEL_UPLOAD), predicted_s)
    uploads_s, downloads_s = [first[1]], [last[0]]
    for answer_s in between_s:
        link_s = answer_s - forward_s - backward_s
        download_s, upload_s = _divided(link_s, (Phase.DOWNLOAD, Phase.UPLOAD), predicted_s)
        downloads_s.append(download_s)
        uploads_s.append(upload_s)
    measured_s[Phase.DISTRIBUTE], measured_s[Phase.MODEL_UPLOAD] = first[0], last[1]
    measured_s[Phase.UPLOAD] = np.mean(uploads_s)
    measured_s[Phase.DOWNLOAD] = np.mean(downloads_s)
    return measured_s


def _divide_local(measured_s: Floats, turn: DeviceTurn, *, predicted_s: Floats) -> None:
    """Take apart federated averaging's one answer; there the device times an epoch as a whole."""
    epoch_s = measured_s[Phase.FORWARD] + measured_s[Phase.BACKWARD]
    measured_s[[Phase.UPLOAD, Phase.SERVER, Phase.DOWNLOAD]] = 0.0
    compute = (Phase.FORWARD, Phase.BACKWARD)
    measured_s[list(compute)] = _divided(epoch_s, compute, predicted_s)
    link_s = turn.answers_s[0] - turn.local_epochs * epoch_s
    transfers = (Phase.DISTRIBUTE, Phase.MODEL_UPLOAD)
    measured_s[list(transfers)] = _divided(link_s, transfers, predicted_s)


def _divided(total_s: float, phases: tuple[Phase, Phase], predicted_s: Floats) -> Floats:
    """Divide seconds among two phases in proportion to their prediction."""
    parts_s = predicted_s[list(phases)]
    whole_s = parts_s.sum()
    fractions = parts_s / whole_s if whole_s > 0 else np.full(2, 0.5)
    divided_s: Floats = max(total_s, 0.0) * fractions
    return divided_s


def turn_seconds(phase_s: Floats, *, local_epochs: int, loss_on_device: bool) -> float:
    """Seconds of a cluster's turn from the phases of its devices, [phase, device]."""
    forward_s = phase_s[Phase.FORWARD] + phase_s[Phase.UPLOAD]
    backward_s = phase_s[Phase.DOWNLOAD] + phase_s[Phase.BACKWARD]
    model_s = phase_s[Phase.MODEL_UPLOAD]
    start_s = phase_s[Phase.DISTRIBUTE].max()
    if loss_on_device:
        return float(start_s + (local_epochs * (forward_s + backward_s) + model_s).max())
    waits_s = local_epochs * forward_s.max() + (local_epochs - 1) * backward_s.max()
    server_s = local_epochs * phase_s[Phase.SERVER].sum()
    return float(start_s + waits_s + server_s + (backward_s + model_s).max())


def least_turn_seconds(phase_s: Floats, *, local_epochs: int, loss_on_device: bool) -> float:
    """Seconds below which no turn of these devices ends: of the slowest alone, [phase, device]."""
    epoch_s = phase_s[[Phase.FORWARD, Phase.UPLOAD, Phase.DOWNLOAD, Phase.BACKWARD]].sum(axis=0)
    own_s = phase_s[Phase.DISTRIBUTE] + local_epochs * epoch_s + phase_s[Phase.MODEL_UPLOAD]
    server_s = 0.0 if loss_on_device else local_epochs * phase_s[Phase.SERVER].sum()
    return float(own_s.max() + server_s)
