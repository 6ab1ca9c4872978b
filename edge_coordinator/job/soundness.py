"""Whether a run's model is sound: what its evaluations say, one after another.

An evaluation is spoilt if its loss is not finite, or far above the best: more than `FAR` times it
and above that of the first, which was of weights that had hardly learned. The job says after how
many in a row a run goes back (`evaluation.spoilt_evaluations`), and how often at the most.
"""

from dataclasses import dataclass, replace
from math import isfinite

from runtime.wire.published import RoundReport

FAR = 10.0


@dataclass(frozen=True)
class Soundness:
    """Follows from the rounds as they are written down, and so is the same in a resumed run."""

    first_loss: float | None = None
    best_loss: float | None = None
    num_spoilt: int = 0
    """Spoilt evaluations in a row."""
    is_lost: bool = False
    """Whether the last evaluation had no finite loss: nothing can be learned from there."""
    last_sound: int | None = None
    """The last round whose evaluation was not spoilt."""
    num_returns: int = 0
    """How often the run went back."""

    def why_spoilt(self, loss: float) -> str:
        """Say why an evaluation with this loss is spoilt; nothing if it is not."""
        if not isfinite(loss):
            return f"the test loss is {loss}"
        if self.first_loss is None or self.best_loss is None:
            return ""
        if loss <= max(FAR * self.best_loss, self.first_loss):
            return ""
        return (
            f"the test loss is {loss:.4g}, the best was {self.best_loss:.4g} and the first "
            f"{self.first_loss:.4g}"
        )

    def after(self, report: RoundReport) -> "Soundness":
        """Take the next round into account; one without an evaluation says nothing."""
        num_returns = self.num_returns + len(report.went_back_to)
        if report.went_back_to and report.spoilt:
            return replace(self, num_returns=num_returns, num_spoilt=0, is_lost=False)
        loss = report.test_loss
        if report.spoilt:
            return replace(
                self,
                num_returns=num_returns,
                num_spoilt=self.num_spoilt + 1,
                is_lost=loss is None,
            )
        if loss is None:
            return replace(self, num_returns=num_returns)
        return Soundness(
            first_loss=loss if self.first_loss is None else self.first_loss,
            best_loss=loss if self.best_loss is None else min(loss, self.best_loss),
            last_sound=report.round,
            num_returns=num_returns,
        )


UNTRIED = Soundness()
"""Before the first evaluation."""
