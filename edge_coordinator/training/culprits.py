"""Whose samples a step cannot be computed on: each device's are tried alone."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import isfinite

import numpy as np

from edge_coordinator.training.algorithm import Smashed

LossOf = Callable[[Mapping[str, Smashed]], float]
"""The server side's loss on what some devices sent; may raise whatever the loss raises."""


def culprits(smashed: Mapping[str, Smashed], loss_of: LossOf) -> dict[str, str]:
    """Say whose samples alone have no finite loss, and why; nobody if that is not their fault.

    If none has one it is the model's, unless that gives a finite loss on a single device's shapes
    filled with zeros.
    """
    unusable = {}
    for device, own in smashed.items():
        if reason := _why_unusable({device: own}, loss_of):
            unusable[device] = reason
    if len(unusable) < len(smashed):
        return unusable
    if len(smashed) > 1 or _why_unusable(_zeros(smashed), loss_of):
        return {}
    return unusable


def _why_unusable(smashed: Mapping[str, Smashed], loss_of: LossOf) -> str:
    try:
        loss = loss_of(smashed)
    except Exception as error:
        return f"sent samples that the loss cannot take: {str(error).partition(chr(10))[0]}"
    return "" if isfinite(loss) else f"sent samples whose loss is {loss}"


def _zeros(smashed: Mapping[str, Smashed]) -> dict[str, Smashed]:
    return {
        device: replace(own, data=np.zeros_like(own.data), labels=np.zeros_like(own.labels))
        for device, own in smashed.items()
    }
