"""What a network begins with: weights of a file, and which of its parameters learn."""

import hashlib
import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from runtime.errors import SettingsError
from runtime.models.frozen import freeze
from runtime.wire.fields import VECTORS, named_by

_WRAPPED_AS = ("state_dict", "model_state_dict", "model")
"""Where the files of training scripts keep the weights, beside an optimiser's state."""

_WRAPPERS = ("module", "_orig_mod")
"""What torch puts before all names of a network that it wraps: data parallel, compiled."""

Weights = Mapping[str, torch.Tensor]


def start_from(network: nn.Module, given: Path, *, leave: Sequence[str], sha256: str | None) -> str:
    """Take over the weights of a file or a run, but for names that `leave` has; the file's SHA-256.

    SettingsError unless they are all of the network's, in its shapes, and of that digest if one is
    given.
    """
    where = f"model.start = {str(given)!r}"
    path = given / "model.safetensors" if given.is_dir() else given
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"model.start: {path} cannot be read: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 not in (None, found):
        raise SettingsError(
            f"{where} has changed: the SHA-256 of {path} is {found[:12]}…, and model.start_digest "
            f"is {str(sha256)[:12]}…; take the file that it was, or model.start_digest = none"
        )
    own = network.state_dict()
    weights = _unwrapped(_read(content, where), own, leave)
    for name in leave:
        if not any(named_by([name], each) for each in own):
            raise _names_nothing("model.start_except", name, own)
    wanted = {name: tensor for name, tensor in own.items() if not named_by(leave, name)}
    offered = {name: tensor for name, tensor in weights.items() if not named_by(leave, name)}
    _check(offered, wanted, where)
    network.load_state_dict(offered, strict=False)
    return found


def choose_what_learns(
    network: nn.Module, *, frozen: Sequence[str], no_decay: Mapping[str, Sequence[str]]
) -> None:
    """Freeze what a job says; SettingsError for a pattern that names nothing.

    `no_decay` is, by the key of the job, what has no weight decay.
    """
    names = [name for name, _ in network.named_parameters(remove_duplicate=False)]
    for key, patterns in {"model.freeze": frozen, **no_decay}.items():
        for pattern in patterns:
            if pattern != VECTORS and not any(named_by([pattern], name) for name in names):
                raise _names_nothing(key, pattern, names)
    freeze(network, frozen)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        why = f"model.freeze = {list(frozen)} leaves" if frozen else "the network has"
        raise SettingsError(f"{why} nothing that learns")


def _read(content: bytes, where: str) -> Weights:
    """Read safetensors, or what torch has written; nothing in it is run."""
    try:
        found: object = load(content)
    except SafetensorError:
        try:
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise SettingsError(
                f"{where} is neither safetensors nor a state_dict of tensors alone, as "
                "torch.save(model.state_dict(), FILE) writes it"
            ) from error
    for key in _WRAPPED_AS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(each, torch.Tensor) for name, each in found.items()
    ):
        raise SettingsError(f"{where} holds no state_dict: names, each with a tensor")
    return found


def _unwrapped(weights: Weights, own: Weights, leave: Sequence[str]) -> Weights:
    """Leave out what a wrapper has put before all names, unless the network's own have it.

    A head of another kind (Lightning names it as the attribute that the network is) goes only where
    what is left are the network's names, but for those that `leave` has.
    """
    wanted = {name for name in own if not named_by(leave, name)}
    given = weights
    while weights and not own.keys() & weights.keys():
        heads = {name.partition(".")[0] if "." in name else "" for name in weights}
        if len(heads) > 1 or "" in heads:
            break
        weights = {name.partition(".")[2]: tensor for name, tensor in weights.items()}
        given = weights if heads <= {*_WRAPPERS} else given
    return weights if wanted <= weights.keys() else given


def _check(offered: Weights, wanted: Weights, where: str) -> None:
    missing = [name for name in wanted if name not in offered]
    unknown = [name for name in offered if name not in wanted]
    advice = "model.start_except leaves tensors as the seed draws them"
    if missing or unknown:
        lacks = f"lacks {len(missing)} tensors of the network ({_few(missing)})" if missing else ""
        more = f"has {len(unknown)} that it has not ({_few(unknown)})" if unknown else ""
        faults = " and ".join(part for part in (lacks, more) if part)
        raise SettingsError(f"{where} {faults}; {advice}")
    for name, tensor in wanted.items():
        if offered[name].shape != tensor.shape:
            raise SettingsError(
                f"{where}: {name} is {list(offered[name].shape)} there and {list(tensor.shape)} in "
                f"the network; {advice}, as [{name!r}]"
            )


def _names_nothing(key: str, pattern: str, names: Sequence[str] | Weights) -> SettingsError:
    return SettingsError(
        f"{key}: {pattern!r} names nothing of the network; its names are {_few(list(names))}"
    )


def _few(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
