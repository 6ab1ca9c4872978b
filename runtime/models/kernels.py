"""The kernels that torch computes with: a setting of the process, not to be changed under others.

Counting and tracing want operators in plain pieces, and so switch oneDNN's kernels off. Whoever
trains at that moment in another thread of the process would compute with other kernels too, and
end in other bits; and two who switch at once would leave them off. So training goes on between
switches, and a switch waits until nobody trains.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch.backends import mkldnn
from torch.nn.attention import SDPBackend, sdpa_kernel

_changed = threading.Condition()
_own = threading.local()
_num_computing = 0
_is_switched = False


@contextmanager
def usual_kernels() -> Iterator[None]:
    """Compute inside with the kernels that the process has for training."""
    global _num_computing  # noqa: PLW0603 - the setting that it guards is one of the process
    if getattr(_own, "is_computing", False):
        yield
        return
    with _changed:
        _changed.wait_for(lambda: not _is_switched)
        _num_computing += 1
    _own.is_computing = True
    try:
        yield
    finally:
        _own.is_computing = False
        with _changed:
            _num_computing -= 1
            _changed.notify_all()


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Keep off fused kernels inside, which hide their matrix products and have no decomposition."""
    global _is_switched  # noqa: PLW0603
    assert not getattr(_own, "is_computing", False), "it would wait for itself"
    assert not getattr(_own, "is_switching", False), "it would wait for itself"
    with _changed:
        _changed.wait_for(lambda: not _is_switched)
        _is_switched = True
        _changed.wait_for(lambda: not _num_computing)
    was_enabled, *_ = _set_mkldnn(enabled=False)
    _own.is_switching = True
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        _set_mkldnn(enabled=was_enabled)
        _own.is_switching = False
        with _changed:
            _is_switched = False
            _changed.notify_all()


def _set_mkldnn(*, enabled: bool) -> tuple[bool, ...]:
    # `mkldnn.flags` would set precisions too, and not as they were: other bits from then on.
    before: tuple[bool, ...] = mkldnn.set_flags(  # type: ignore[no-untyped-call]
        _enabled=enabled, _fp32_precision=None
    )
    return before
