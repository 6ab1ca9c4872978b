"""How a device brings the features of its samples to one scale."""

from typing import Annotated

from pydantic import Field

from runtime.wire.fields import Message

MAX_FEATURES = 1000
"""That may be normalised; more would not fit a control message."""


class Normalisation(Message):
    """What each feature of a sample loses: its mean, and then its deviation as a factor."""

    mean: tuple[float, ...] = Field(min_length=1, max_length=MAX_FEATURES)
    deviation: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        min_length=1, max_length=MAX_FEATURES
    )
    axis: int = Field(ge=0, lt=8, description="of a sample, along which the features lie")
