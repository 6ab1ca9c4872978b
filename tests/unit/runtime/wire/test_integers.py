"""int8 and int4, where a group begins at zero."""

import numpy as np
import pytest

from runtime.wire.codecs.codec import layout_of_samples
from runtime.wire.codecs.integers import Integers


@pytest.mark.parametrize("bits", [8, 4])
def test_a_channel_whose_least_is_zero_travels_alike_whether_all_others_are_so_or_not(
    bits: int,
) -> None:
    after_relu = np.maximum(np.random.default_rng(0).standard_normal((4, 2, 8, 8)), 0)
    after_relu = after_relu.astype(np.float32)
    beside_another = after_relu.copy()
    beside_another[:, 1] -= 1
    layout, codec = layout_of_samples(after_relu.shape), Integers(bits)
    spared, whole = (
        codec.decode(codec.encode(x, layout, (1, 2, 3)), layout)
        for x in (after_relu, beside_another)
    )
    assert (spared[:, 0] == whole[:, 0]).all()
