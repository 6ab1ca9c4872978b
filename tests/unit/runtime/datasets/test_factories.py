"""What a factory of the user's own gives: taken, or told what it is."""

from pathlib import Path

import numpy as np
import pytest

from runtime.datasets.samples import make_samples
from runtime.datasets.sources import load_source
from runtime.errors import SettingsError


class DataFrame:
    """As pandas has it: what it gives by a number is a column."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> object:
        raise KeyError(index)


def table() -> DataFrame:
    """Give a table as it is."""
    return DataFrame()


def triple() -> tuple[object, ...]:
    """Give three parts."""
    return (table(), table(), table())


@pytest.mark.parametrize(
    ("name", "said"), [("table", r"returned a DataFrame \(take numbers"), ("triple", "tuple of 3;")]
)
def test_a_factory_that_gives_something_else_is_told_what_it_gave(name: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_source(f"{__name__}:{name}", base_dir=Path())


def test_a_place_may_count_for_nothing_and_a_sample_may_not() -> None:
    y = np.array([[0, 1], [-100, 2]])
    assert make_samples(x=np.ones((2, 3)), y=y, where="own").y.tolist() == y.tolist()
    with pytest.raises(SettingsError, match="label -1 of sample 1"):
        make_samples(x=np.ones((2, 3)), y=np.array([[0, -100], [3, -1]]), where="own")
    with pytest.raises(SettingsError, match="label -100 of sample 0"):
        make_samples(x=np.ones((2, 3)), y=np.array([-100, 1]), where="own")
