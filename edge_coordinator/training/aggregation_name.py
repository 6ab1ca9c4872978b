"""What a job may call its aggregation; apart, so that reading a job needs no arrays."""

from typing import Literal

AggregationName = Literal["mean", "clipped", "trimmed_mean", "median"]
