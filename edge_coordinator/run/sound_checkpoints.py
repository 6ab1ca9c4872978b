"""Checkpoints to go back to when a run has been spoilt: of rounds whose evaluation was sound.

Each is a second name of the checkpoint of its round. Kept are the newest, and the newest of every
`SPACING`th, of every `SPACING` squared-th and so on: poison that works slowly is in the newest too.
"""

import logging
import re
from collections.abc import Iterable
from pathlib import Path

from edge_coordinator.run.best_weights import BEST_NAME, keep_checkpoint_as
from edge_coordinator.run.checkpoint import load_checkpoint
from edge_coordinator.training.edge_model import EdgeModel
from runtime.errors import SettingsError

SPACING = 4
_PATTERN = re.compile(r"checkpoint-sound-(\d+)\.safetensors")

log = logging.getLogger(__name__)


def keep_sound(directory: Path, round_: int, *, every: int, most: int) -> None:
    """Keep the checkpoint of this round, and `most` in all; `every` so many are evaluated."""
    if not most:
        return
    keep_checkpoint_as(directory, _name(round_))
    kept = kept_rounds(sound_rounds(directory), every=every, most=most)
    for other in sound_rounds(directory):
        if other not in kept:
            (directory / _name(other)).unlink(missing_ok=True)


def kept_rounds(rounds: Iterable[int], *, every: int, most: int) -> set[int]:
    """Say which of these rounds' checkpoints are kept."""
    known = sorted(rounds)
    kept = set()
    for power in range(most):
        multiples = [each for each in known if each // every % SPACING**power == 0]
        kept |= set(multiples[-1:])
    return kept


def sound_rounds(directory: Path) -> list[int]:
    """List the rounds whose checkpoints are kept, in order."""
    matches = (_PATTERN.fullmatch(file.name) for file in directory.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def forget_sound_after(directory: Path, last: int) -> None:
    """Forget checkpoints of rounds that are run again."""
    for round_ in sound_rounds(directory):
        if round_ > last:
            (directory / _name(round_)).unlink(missing_ok=True)


def return_to_sound(directory: Path, model: EdgeModel) -> int | None:
    """Put the newest sound checkpoint into the model; its round, or None if there is none.

    It is used up: whoever comes again goes further back, in the end to the best round's.
    """
    for round_ in reversed(sound_rounds(directory)):
        path = directory / _name(round_)
        found = _load(path, model)
        path.unlink(missing_ok=True)
        if found is not None:
            return found
    return _load(directory / BEST_NAME, model) if (directory / BEST_NAME).exists() else None


def _load(path: Path, model: EdgeModel) -> int | None:
    try:
        return load_checkpoint(path.parent, model, name=path.name).round
    except (SettingsError, KeyError, ValueError) as error:
        log.warning("cannot go back to %s: %s", path, error)
        return None


def _name(round_: int) -> str:
    return f"checkpoint-sound-{round_:06}.safetensors"
