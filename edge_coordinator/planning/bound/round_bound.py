"""The bound of a plan's round: the tightest of those that hold for it."""

import numpy as np

from edge_coordinator.planning.batch_shares import samples_allowed, sharings
from edge_coordinator.planning.bound.divided_turns import divided_bound_s
from edge_coordinator.planning.bound.lower_bound import lower_bound_s, together_s
from edge_coordinator.planning.bound.shared_batches import shared_bound_s
from edge_coordinator.planning.joint.formed import Formed
from edge_coordinator.planning.micro_batches import Flows
from profiles.units import Counts


def round_bound_s(formed: Formed) -> float:
    """Seconds that no clusters of these sizes beat, their samples shared out as is allowed."""
    flows, members = formed.flows, formed.members
    fleet, workload, cut = flows.fleet, flows.workload, flows.cut
    allowed = sharings(workload, cut=cut)[-1]
    if allowed == "equal" and workload.partings == (1,):
        pricer = flows.pricer(workload.phis_at(cut)[-1])
        return lower_bound_s(pricer, workload, members=members)
    if allowed == "equal":
        bound_s = _alone_s(flows, members)
    else:
        sizes = (members >= 0).sum(axis=-1)
        bound_s = shared_bound_s(fleet, workload, cut=cut, sizes=sizes)
    samples_of = samples_allowed(fleet, workload, cut=cut, sharing=allowed, width=members.shape[1])
    divided_s = divided_bound_s(
        fleet, workload, formed.pricer, samples_of, cut=cut, members=members
    )
    return max(bound_s, divided_s)


def _alone_s(flows: Flows, members: Counts) -> float:
    """Seconds of a round in which no turn ends before any of its devices could have ended it.

    Alone, and with all of the link. Of gradients, the more is aggregated the less a device waits
    for its own.
    """
    workload, sizes = flows.workload, (members >= 0).sum(axis=-1)
    alone = np.arange(flows.fleet.num_devices)[:, np.newaxis]
    own_s = [
        flows.turns_s(flow, members=alone, shares=np.ones(alone.shape))
        for flow in workload.flows(flows.cut)
    ]
    return together_s(np.min(own_s, axis=0), sizes=sizes) + workload.round_overhead_s
