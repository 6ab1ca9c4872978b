"""Why a job's mini-batches have to stay whole, or equal: where others are other mathematics."""

import logging

import numpy as np
import torch

from edge_coordinator.job.settings import JobSettings
from runtime.datasets.samples import Samples
from runtime.errors import SettingsError
from runtime.models.batch_layers import batch_layers
from runtime.models.graph.network import whole_numbers_into
from runtime.models.load import refused_cuts
from runtime.models.losses import BUILT_IN, Loss
from runtime.models.sequence import Network, Shape, layers_of
from runtime.target_shape import IGNORED

log = logging.getLogger(__name__)

_NUM_TRIED, _FIRST = 4, 3
_TOLERANCE = 1e-4
"""Of the loss: far above rounding, far below what a sum differs from a mean by."""


def whole_batches(
    settings: JobSettings, network: Network, loss: Loss, *, shape: Shape, test: Samples | None
) -> str:
    """Say why mini-batches stay whole; nothing if they need not, or if nobody asks.

    A layer that looks at a whole mini-batch is on one side or the other, wherever the cut is.
    SettingsError where a number of micro-batches is asked for that no plan can give.
    """
    wanted = settings.training.micro_batches
    if wanted == 1:
        return ""
    if wanted == "auto" and settings.plan.is_by_hand:
        raise SettingsError(
            "training.micro_batches = 'auto' is chosen by the plan, and plan.mode is 'by_hand': "
            "give a number, or take plan.mode 'auto'"
        )
    if why := _why_no_mean(loss, network, test, name=settings.training.loss):
        return why
    return next(iter(batch_layers(network, shape).values()), "")


def equal_batches(settings: JobSettings, network: Network, *, shape: Shape) -> str:
    """Say why a cluster's samples cannot be shared out; nothing if they can, or if nobody asks.

    A layer that looks at a whole mini-batch would look at a few samples here and at many there.
    SettingsError where there is no batch of a cluster to share out.
    """
    if settings.plan.batch_sizes == "equal":
        return ""
    if settings.training.method == "fl":
        raise SettingsError(
            f"plan.batch_sizes = {settings.plan.batch_sizes!r} shares out the samples of a "
            "cluster's step, and with training.method 'fl' each device takes steps of its own: "
            "take 'equal'"
        )
    return next(iter(batch_layers(network, shape).values()), "")


def kept_batches(
    settings: JobSettings, network: Network, loss: Loss, *, shape: Shape, test: Samples | None
) -> tuple[str, str]:
    """Give both reasons, and say them."""
    whole = whole_batches(settings, network, loss, shape=shape, test=test)
    equal = equal_batches(settings, network, shape=shape)
    for kept, why in (("whole", whole), ("equal", equal)):
        if why:
            log.warning("mini-batches stay %s: %s", kept, why)
    return whole, equal


def cuts_to_avoid(
    settings: JobSettings, network: Network, *, shape: Shape
) -> tuple[dict[int, str], dict[int, str]]:
    """List cuts that cannot be, and those at which nothing is aggregated where plans may choose."""
    refused = refused_cuts(network, shape) | _not_shared_out(settings, network, shape=shape)
    plain = not_averaged(settings, network, shape=shape)
    return (refused, plain) if settings.training.phis else (refused | plain, {})


def not_averaged(settings: JobSettings, network: Network, *, shape: Shape) -> dict[int, str]:
    """Cuts above which samples cannot be averaged over devices, to why; none if nobody asks.

    A layer that looks at a whole mini-batch would look at means among samples, and whole numbers
    that cross a cut have no mean that is one.
    """
    phi = settings.training.phi
    if not phi:
        return {}
    names, found = [*layers_of(network)], dict[int, str]()
    batch = batch_layers(network, shape)
    for cut in range(1, len(names) + 1):
        above = next((why for index, why in batch.items() if index >= cut), "")
        if cut < len(names) and (types := whole_numbers_into(network, cut)):
            above = f"what crosses it is {types}"
        if above:
            found[cut] = f"training.phi = {phi} averages samples over devices, and {above}"
    return found


def _not_shared_out(settings: JobSettings, network: Network, *, shape: Shape) -> dict[int, str]:
    """Cuts above which several devices cannot share out the samples, to why; none if one computes.

    A layer that looks at a whole mini-batch would look at the part of it that its device has.
    """
    devices = settings.training.server_devices
    if len(devices) < 2:
        return {}
    batch = batch_layers(network, shape)
    return {
        cut: f"{why}, and training.server_device = {list(devices)} shares mini-batches out: take "
        f"one device, or a cut from layer {[*layers_of(network)][max(batch)]} on"
        for cut in range(max(batch, default=-1) + 1)
        if (why := next(why for index, why in batch.items() if index >= cut))
    }


def _why_no_mean(loss: Loss, network: Network, test: Samples | None, *, name: str) -> str:
    """Say why a loss is no mean over samples; nothing if it is one."""
    if name in BUILT_IN:
        ignores = test is not None and test.y.dtype.kind == "i" and bool((test.y == IGNORED).any())
        return f"labels of {IGNORED} count for nothing, in some samples more" if ignores else ""
    if test is None or len(test) < _NUM_TRIED:
        return f"the loss {name} could not be tried, to see whether it is a mean over samples"
    x, tried = test.usable(np.arange(_NUM_TRIED), among=np.arange(len(test)))
    labels = torch.from_numpy(test.y[tried])
    was_training = network.training
    with torch.no_grad():
        outputs = network.eval()(torch.from_numpy(x))
        whole = float(loss(outputs, labels))
        first = float(loss(outputs[:_FIRST], labels[:_FIRST]))
        rest = float(loss(outputs[_FIRST:], labels[_FIRST:]))
    network.train(was_training)
    mean = (first * _FIRST + rest * (_NUM_TRIED - _FIRST)) / _NUM_TRIED
    if abs(mean - whole) <= _TOLERANCE * max(abs(whole), abs(mean)):
        return ""
    return f"the loss {name} is no mean over samples: {whole:.4g} of four, {mean:.4g} of its parts"
