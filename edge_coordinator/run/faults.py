"""What goes wrong beside the training: said once, counted, and gone on from.

Only a program's outermost loop catches broadly, and this: a run of days shall not end because its
next plan, a report of it or its publication met with what nobody thought of, while the devices
could train on as they did in the round before. What is expected has errors of its own and passes
through: a person can mend a `SettingsError`, and whoever called handles a `BusError`. Nothing is
hidden by it: the trace of the first of each kind goes to the log, at debug, and from there to the
run's directory; and a test during which something was gone on from fails, unless it meant to.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import EdgeError, root_cause
from runtime.wire.fields import as_words

log = logging.getLogger(__name__)


class Faults:
    """Counts by what was done when something went wrong."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._told: Counter[str] = Counter()
        self._said: set[tuple[str, type[Exception]]] = set()

    @contextmanager
    def gone_on_from(self, doing: str, *, instead: str) -> Iterator[None]:
        """Swallow what goes wrong inside, and say what is done `instead` of it."""
        try:
            yield
        except Exception as error:
            if isinstance(root_cause(error), EdgeError):
                raise
            self._note(doing, error, instead=instead)

    def count(self, doing: str) -> None:
        """Count what somebody else has said and gone on from."""
        self.counts[doing] += 1

    def new_ones(self) -> dict[str, int]:
        """Count what went wrong since this was asked last."""
        new, self._told = self.counts - self._told, self.counts.copy()
        return dict(sorted(new.items()))

    def _note(self, doing: str, error: Exception, *, instead: str) -> None:
        self.counts[doing] += 1
        kind = (doing, type(error))
        if kind in self._said:
            return
        self._said.add(kind)
        what = as_words(f"{type(error).__name__}: {error}")
        log.warning(
            "%s went wrong, so %s; from now on it is only counted: %s", doing, instead, what
        )
        log.debug("the trace of it", exc_info=error)


@contextmanager
def traces_in(path: Path) -> Iterator[None]:
    """Write the traces to a file, which is made for the first of them."""
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        handler.close()
