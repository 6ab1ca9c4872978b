"""A seed is a run: how its mini-batches are parted, and all that befalls it."""

from functools import cache

from benchmarks.simulated_faults.aggregated import AggregatedJob
from benchmarks.simulated_faults.job import SimulatedJob
from benchmarks.simulated_faults.micro_batches import MicroBatchesJob
from benchmarks.simulated_faults.whole_batches import WholeBatchesJob
from runtime.errors import EdgeError

NUM_KINDS = 4


def job_of(seed: int, *, is_faulty: bool = True) -> SimulatedJob:
    """Give a seed's job: whole mini-batches, two or three parts, or aggregated gradients."""
    match seed % NUM_KINDS:
        case 0:
            return WholeBatchesJob(seed, is_faulty=is_faulty)
        case 3:
            return AggregatedJob(seed, is_faulty=is_faulty)
        case kind:
            return MicroBatchesJob(seed, is_faulty=is_faulty, micro_batches=1 + kind)


@cache
def undisturbed(kind: int) -> str:
    """Give the hash of the run that nothing happens to, of the seeds with this remainder."""
    return job_of(kind, is_faulty=False).run()


def why_wrong(seed: int) -> str:
    """Say what is wrong with a seed's run; nothing if all is as it should be."""
    expected = undisturbed(seed % NUM_KINDS)
    try:
        ended = job_of(seed).run()
    except (EdgeError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"
    return "" if ended == expected else f"ended in {ended[:12]}, undisturbed is {expected[:12]}"
