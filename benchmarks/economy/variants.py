"""What is compared: one job, and flags over it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One way to run the job."""

    name: str
    flags: tuple[str, ...]
    """Of `cpsl local`, over those that all variants have."""


BASELINE = Variant("fp32", ())
"""What all others are compared with."""
CODECS = tuple(
    Variant(name, ("--codec", name))
    for name in ("bf16", "int8", "int8+zlib", "int4", "topk:0.1", "randtopk:0.1", "auto")
)
OVERLAP = Variant("overlap", ("--micro-batches", "4"))
BOTH = Variant("overlap+int8", ("--micro-batches", "4", "--codec", "int8"))
PHI = tuple(Variant(f"phi:{phi}", ("--phi", phi)) for phi in ("0.25", "0.5", "1"))
"""Aggregated gradients; the baseline has none of them."""
EVERYTHING = Variant(
    "everything",
    (
        *("--codec", "auto", "--micro-batches", "auto", "--batch-sizes", "auto"),
        *("--phi", "auto", "--set", "plan.cuts=by_device"),
    ),
)
PLANNED = (
    Variant("by-device", ("--set", "plan.cuts=by_device")),
    Variant("shares", ("--batch-sizes", "auto")),
    EVERYTHING,
)
"""What a plan chooses for each device, alone and with all else that it may choose."""
SHARED = Variant("shared", ("--set", "plan.medium=shared"))
"""All devices on one link, the sum of theirs: what one is not sent is time for the others."""
SHARED_PHI = Variant("shared+phi:auto", (*SHARED.flags, "--phi", "auto"))
VARIANTS = (BASELINE, *CODECS, OVERLAP, BOTH, *PLANNED, *PHI, SHARED, SHARED_PHI)


def variants_named(names: list[str]) -> list[Variant]:
    """Find variants, the baseline first; ValueError names one that is not there."""
    known = {variant.name: variant for variant in VARIANTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no variant {unknown[0]!r}; there are {', '.join(known)}")
    return [BASELINE, *(known[name] for name in names if name != BASELINE.name)]
