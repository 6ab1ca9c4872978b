"""A built-in network is the coordinator's to choose, its memory the owner's to give."""

from contextlib import nullcontext

import pytest

from device_agent.engines.open import open_engine
from device_agent.limits import Limits
from runtime.errors import SettingsError
from runtime.wire.fields import Options
from tests.turn import ASSIGNMENT

pytestmark = pytest.mark.torch

SHAPE = (1, 28, 28)
HUGE: Options = {"hidden": [2**30, 2**30]}  # 4 exabytes of weights.


def test_a_network_of_enormous_options_takes_no_memory_before_it_is_refused() -> None:
    job = ASSIGNMENT.model_copy(update={"network": "mlp", "options": HUGE})
    engine = open_engine("torch", job, sample_shape=SHAPE)
    for cut in (2, 4):
        with pytest.raises(SettingsError, match="--max-memory allows more"):
            engine.open(cut)


def test_enormous_options_that_do_not_fit_the_data_are_refused_as_well() -> None:
    options = HUGE | {"input_shape": [3, 3]}
    job = ASSIGNMENT.model_copy(update={"network": "mlp", "options": options})
    with pytest.raises(SettingsError, match=r"the network takes \d+ MB here"):
        open_engine("torch", job, sample_shape=SHAPE)


def test_an_owner_gives_a_network_as_much_memory_as_wanted() -> None:
    limits = Limits(memory_bytes=500_000)  # LeNet has 178 kB of weights, most above the last pool.
    job = ASSIGNMENT.model_copy(update={"batch_size": 4})
    engine = open_engine("torch", job, sample_shape=SHAPE, limits=limits)
    engine.open(3)
    with pytest.raises(SettingsError, match="training 12 layers takes"):
        engine.open(12)


def test_a_mini_batch_is_priced_with_all_that_training_keeps_of_it() -> None:
    limits = Limits(memory_bytes=3_000_000)
    for batch_size, fits in ((16, True), (2**40, False)):
        job = ASSIGNMENT.model_copy(update={"batch_size": batch_size})
        engine = open_engine("torch", job, sample_shape=SHAPE, limits=limits)
        with nullcontext() if fits else pytest.raises(SettingsError, match=f"{batch_size} samples"):
            engine.open(3)
