"""Which rank computes which devices' samples of a step: whole devices, in their order."""

from collections.abc import Sequence


def share_out(sizes: Sequence[int], num_ranks: int) -> list[range]:
    """Give each rank some of the devices, whose samples these are; a rank may have none.

    What is given is [rank] places in `sizes`: one run of neighbours each, so that what comes back
    is in the devices' order. A device goes where the middle of its samples lies, if all samples
    were parted evenly.
    """
    total, before = sum(sizes), 0
    ends = [0] * num_ranks
    for place, size in enumerate(sizes):
        middle = before + size / 2
        ends[min(num_ranks - 1, int(middle * num_ranks / total))] = place + 1
        before += size
    shares, start = [], 0
    for end in ends:
        shares.append(range(start, max(start, end)))
        start = max(start, end)
    return shares
