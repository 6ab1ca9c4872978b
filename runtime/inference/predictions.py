"""What outputs say of each sample, for people and for files."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import SettingsError
from runtime.inference.half import Floats, Task

SUFFIXES = (".csv", ".jsonl", ".npy")
"""Of files that predictions are written to."""
_LARGEST = np.float64(np.finfo(np.float64).max)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Outputs of a model, [sample, ...], and what is known of the samples beside."""

    outputs: Floats
    task: Task
    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """Of the samples, where they have any."""
    labels: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.outputs)

    def rows(self) -> Iterator[dict[str, Any]]:
        """A record for each sample: the class and its probability, or the values."""
        said = self._classes() if self.task == "classes" else self._values()
        for number, own in enumerate(said):
            row: dict[str, Any] = {"sample": number}
            if self.names:
                row["name"] = self.names[number]
            row |= own
            if self.labels is not None:
                row["label"] = self._label(self.labels[number])
            yield row

    def _classes(self) -> Iterator[dict[str, Any]]:
        likeliest = self.outputs.argmax(axis=1)
        chances = probabilities(self.outputs)
        for number, chosen in enumerate(likeliest.tolist()):
            chance = round(float(chances[number, chosen]), 6)
            yield {"prediction": self._named(chosen), "probability": chance}

    def _values(self) -> Iterator[dict[str, Any]]:
        for values in self.outputs:
            yield {"prediction": values.item() if values.size == 1 else values.tolist()}

    def _label(self, label: Any) -> object:  # noqa: ANN401 - a number or an array of numbers
        value = np.asarray(label)
        if value.size > 1:
            return value.tolist()
        return self._named(value.item()) if self.task == "classes" else value.item()

    def _named(self, number: int) -> object:
        return self.classes[number] if 0 <= number < len(self.classes) else number

    def as_csv(self) -> str:
        """Lines of a table with its head; several values of a sample have columns of their own."""
        if self.outputs.ndim > 2:
            raise SettingsError(
                f"outputs of shape {self.outputs.shape[1:]} fit no table; write them to a file "
                "that ends in .npy or .jsonl"
            )
        text = StringIO()
        rows = [_flat(row) for row in self.rows()]
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def as_file(self, suffix: str) -> bytes:
        """Content of a file that ends so, one of SUFFIXES: .npy has the outputs as they are."""
        match suffix:
            case ".csv":
                return self.as_csv().encode()
            case ".jsonl":
                return "".join(json.dumps(row) + "\n" for row in self.rows()).encode()
        return _npy(self.outputs)


def check_suffix(suffix: str) -> None:
    """SettingsError unless predictions can be written to a file that ends so."""
    if suffix not in SUFFIXES:
        raise SettingsError(
            f"predictions are not written to files that end in {suffix!r}; take one of "
            f"{', '.join(SUFFIXES)}"
        )


def probabilities(outputs: Floats) -> NDArray[np.float64]:
    """Softmax over the classes, [sample, class]; what is no number is likely of nothing."""
    scores = np.nan_to_num(outputs.astype(np.float64), nan=-_LARGEST)
    with np.errstate(over="ignore"):
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def batches(num_samples: int, size: int) -> Sequence[slice]:
    """Parts of at most so many samples, in order."""
    return [slice(start, start + size) for start in range(0, num_samples, size)]


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, list):
            flat |= {f"{key}_{number}": each for number, each in enumerate(value)}
        else:
            flat[key] = value
    return flat


def _npy(array: Floats) -> bytes:

    content = BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()
