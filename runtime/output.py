"""What a program prints, and whoever reads it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def until_reader_leaves() -> Iterator[None]:
    """End the block in silence when whoever reads our output has had enough, as `head` has."""
    try:
        yield
        sys.stdout.flush()
    except* BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
