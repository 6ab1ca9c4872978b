"""Units: how amounts convert, and the array types that carry them."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

BITS_PER_BYTE = 8
