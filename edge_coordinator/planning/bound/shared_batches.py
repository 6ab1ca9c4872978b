"""What a round takes at least, however the samples of its clusters are shared out.

A turn is no shorter than any of its devices alone, with all of the link; and so than all of them
done at once, their paces added up. Over clusters of given numbers of samples the sum of turns is
least where paces go as the roots of these numbers, whoever is with whom.

Nor are turns shorter than what all of their devices send over a link that they divide: shares add
up to no more than all of it. Samples then cost least with the devices whose links are the fastest.
"""

from dataclasses import replace

import numpy as np

from edge_coordinator.planning.batch_shares import MOST_TIMES
from edge_coordinator.planning.bound.lower_bound import together_s
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.latency import phase_seconds
from profiles.link import IndependentLinks
from profiles.phases import Phase
from profiles.units import Counts, Floats

_SHORTEST_S = 1e-12


def shared_bound_s(fleet: Fleet, workload: Workload, *, cut: int, sizes: Counts) -> float:
    """Seconds that no round beats at a cut in clusters of these sizes, [cluster].

    What a message costs at any size does not count here.
    """
    overhead_s = len(sizes) * min(workload.cluster_overhead_s, 0.0) + workload.round_overhead_s
    aggregates = bool(workload.phi or workload.phis)
    # A device alone has nobody to aggregate with; in company the server does no less for it.
    workload = replace(workload, message_bytes=np.inf, phi=0.0)
    once_s, doubled_s = (_alone_s(fleet, workload, cut=cut, times=times) for times in (1, 2))
    sample_s = np.maximum(doubled_s - once_s, _SHORTEST_S)  # Of a mini-batch's worth of them.
    least_s = once_s - sample_s  # Without any samples.
    no_less_s = together_s(least_s + sample_s / workload.batch_size, sizes=sizes)
    level_s = float(least_s.min())
    done_s = len(sizes) * level_s + _done_at_once_s(
        least_s - level_s, sample_s, fleet, workload, sizes
    )
    sent_s = 0.0
    if not isinstance(workload.medium, IndependentLinks):
        sent_s = _sent_over_one_link_s(fleet, workload, cut=cut, sizes=sizes, aggregates=aggregates)
    return max(done_s, no_less_s, sent_s, 0.0) + overhead_s


def _sent_over_one_link_s(
    fleet: Fleet, workload: Workload, *, cut: int, sizes: Counts, aggregates: bool
) -> float:
    """Seconds of all clusters, [cluster], whose devices do nothing but divide a link.

    Of a gradient that `aggregates` some samples, nobody knows here what goes over it.
    """
    seconds = phase_seconds(fleet, workload, cut=cut)
    up_s, down_s, model_s = seconds.link_s[[Phase.UPLOAD, Phase.DOWNLOAD, Phase.MODEL_UPLOAD]]
    epochs, server_s = workload.local_epochs, seconds.fixed_s[Phase.SERVER]
    if aggregates:
        down_s, server_s = np.zeros_like(down_s), np.zeros_like(server_s)
    if workload.partings == (1,):  # One after another, and the server after the last upload.
        ways = [(model_s, epochs * (up_s + down_s + server_s))]
    else:  # Both ways at once, with nothing certain of the server.
        ways = [(model_s, epochs * up_s), (np.zeros_like(model_s), epochs * down_s)]
    most = np.clip(fleet.num_samples / workload.batch_size, 0.0, MOST_TIMES)
    least = np.minimum(1 / workload.batch_size, most)
    number = float(np.minimum(most, 1.0).sum())
    sent_s = max(
        float(once_s.sum()) + _cheapest_s(each_s, number=number, least=least, most=most)
        for once_s, each_s in ways
    )
    return sent_s + together_s(seconds.distribute_s[:-1], sizes=sizes)


def _cheapest_s(each_s: Floats, *, number: float, least: Floats, most: Floats) -> float:
    """Seconds of so many mini-batches, most of them with devices that take least, [device]."""
    order = each_s.argsort(kind="stable")
    room = (most - least)[order]
    more = np.clip(number - float(least.sum()) - (room.cumsum() - room), 0.0, room)
    return float(each_s @ least + each_s[order] @ more)


def _done_at_once_s(
    least_s: Floats, sample_s: Floats, fleet: Fleet, workload: Workload, sizes: Counts
) -> float:
    """Seconds of all clusters, [cluster], whose devices are done at once; none below 0.

    They are least where all that devices do besides samples is the largest cluster's.
    """
    has_enough = fleet.num_samples >= workload.batch_size
    if not has_enough.all():  # Then clusters may have fewer samples, and who knows which.
        sizes = has_enough.sum(keepdims=True)
    work = np.sort(sizes).astype(np.float64)
    work[-1] += float((least_s / sample_s).sum())
    whole_s: Floats = np.sqrt(work).sum() ** 2 / (1 / sample_s).sum()
    return float(whole_s)


def _alone_s(fleet: Fleet, workload: Workload, *, cut: int, times: int) -> Floats:
    """What a turn of so many mini-batches takes of a device alone at the least, [device]."""
    samples = np.full(fleet.num_devices, float(times * workload.batch_size))
    seconds = phase_seconds(fleet, workload, cut=cut, batch_sizes=samples)
    epochs = workload.local_epochs
    if workload.partings != (1,):  # Then no more than one of these is certain.
        computing_s = seconds.fixed_s[Phase.FORWARD] + seconds.fixed_s[Phase.BACKWARD]
        links_s = seconds.link_s[[Phase.UPLOAD, Phase.DOWNLOAD]].max(axis=0)
        longest_s: Floats = epochs * np.maximum(computing_s, links_s)
        return longest_s
    own_s = seconds.distribute_s + seconds.finish.sum(axis=0) + epochs * seconds.server_s
    whole_s: Floats = own_s[:-1]
    return whole_s
