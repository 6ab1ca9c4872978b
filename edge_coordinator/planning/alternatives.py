"""What a round could have been instead, and one sentence on what was chosen over it."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from edge_coordinator.planning.clusters.clustering import random_clusters
from edge_coordinator.planning.cuts.cut_layer import CutChoice
from edge_coordinator.planning.division.pricing import THOROUGH_EXCHANGES, Pricer
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.form import Form, Method, OwnCut, OwnGrouping
from edge_coordinator.planning.latency import PhasesByShare, round_s
from edge_coordinator.planning.micro_batches import LEAST_GAIN_OF_QUARTER, Flows
from edge_coordinator.planning.plan import Alternatives, ClusterPlan
from edge_coordinator.planning.spectrum import equal_shares
from profiles.units import Counts, Floats

NUM_RANDOM_DRAWS = 8


def price_alternatives(
    pricer: Pricer,
    priced: PhasesByShare,
    workload: Workload,
    choice: CutChoice,
    *,
    start: Counts,
    generator: np.random.Generator,
) -> Alternatives:
    """Price what the round could have been instead, in the micro-batches of the plan."""
    sizes = (start >= 0).sum(axis=-1)
    draws = np.stack(
        [random_clusters(sizes=sizes, generator=generator) for _ in range(NUM_RANDOM_DRAWS)]
    )

    def mean_s(members: Counts, shares: Floats) -> float:
        return float(round_s(priced, workload, members=members, shares=shares).mean())

    return Alternatives(
        sorted_clusters_s=mean_s(start, pricer.shares(start, max_exchanges=THOROUGH_EXCHANGES)),
        random_clusters_s=mean_s(draws, pricer.shares(draws, max_exchanges=THOROUGH_EXCHANGES)),
        random_equal_shares_s=mean_s(draws, equal_shares(present=draws >= 0, medium=pricer.medium)),
        cuts=choice.prices,
        next_best_cut=choice.next_best,
    )


def reason_of(
    cut: int,
    workload: Workload,
    predicted_s: float,
    alternatives: Alternatives,
    method: Method,
    *,
    saved_s: float,
    is_shared_out: bool,
) -> str:
    """Say in one sentence what was chosen and what it was chosen over.

    `saved_s` is what the codecs save beside those that lose least. Where samples are shared out,
    the alternatives are still those of equal mini-batches.
    """
    reason = f"{method}: {predicted_s:.3g} s predicted at cut {cut} "
    reason += f"(after {workload.cuts.cut_names[cut]})"
    other = alternatives.next_best_cut
    if other is not None:
        reason += f", {other.expected_s:.3g} s expected at cut {other.cut} (after {other.name})"
    if method == "cpsl":
        reason += f", {alternatives.random_clusters_s:.3g} s with random clusters"
        reason += " of equal mini-batches" * is_shared_out
    if workload.chosen is not None:
        reason += f"; tensors travel as {workload.chosen.smashed}"
        reason += f", which saves {saved_s:.3g} s" * (saved_s > 0)
    return reason


def cuts_reason(fleet: Fleet, workload: Workload, choice: CutChoice) -> str:
    """Say how many devices cut at another layer than the round's, and what that saves."""
    counts = Counter(fleet.cuts_by(choice.cut).tolist())
    del counts[choice.cut]
    others = ", ".join(
        f"{counts[other]} after {workload.cuts.cut_names[other]}" for other in sorted(counts)
    )
    if not others:
        return ""
    saved = f", which saves {choice.own_saved_s:.3g} s" if choice.own_saved_s > 0 else ""
    return f"; of its devices cut {others}{saved}"


def own_reason(
    choice: CutChoice, form: Form | OwnGrouping, own_cut: OwnCut | None, method: Method
) -> str:
    """Name what of a plan is code of the user's own."""
    said = ""
    if isinstance(form, OwnGrouping) and method == "cpsl":
        said += f"; grouped by {form.name}"
    if own_cut is not None and choice.prices:
        said += f"; the cut is that of {own_cut.name}"
    return said


def parting_reason(clusters: Sequence[ClusterPlan], workload: Workload) -> str:
    """Say what micro-batches save, or why there are none where they are asked for."""
    parted = [each for each in clusters if each.whole_batches_s is not None]
    if parted:
        saved_s = sum((each.whole_batches_s or 0.0) - (each.predicted_s or 0.0) for each in parted)
        counts = " or ".join(map(str, sorted({each.micro_batches for each in parted})))
        return f"; {counts} micro-batches save {saved_s:.3g} s"
    return f"; mini-batches stay whole: {workload.whole_batches}" if workload.whole_batches else ""


def phi_reason(clusters: Sequence[ClusterPlan], flows: Flows, members: Counts) -> str:
    """Say what it saves to aggregate gradients, or why none are; nothing where no plan chooses.

    `members` are those of the clusters, [cluster, position].
    """
    workload = flows.workload
    if not workload.phis:
        return ""
    aggregated = [each for each in clusters if each.plain_s is not None]
    if aggregated:
        saved_s = sum((each.plain_s or 0.0) - (each.predicted_s or 0.0) for each in aggregated)
        shares = " or ".join(f"{phi:g}" for phi in sorted({each.phi or 0.0 for each in aggregated}))
        where = f"{len(aggregated)} of {len(clusters)} clusters"
        return f"; phi {shares} in {where} saves {saved_s:.3g} s"
    if flows.cut in workload.plain_cuts:
        return f"; phi stays 0: {workload.plain_cuts[flows.cut]}"
    if flows.are_plain(members).all():
        return "; phi stays 0: in no cluster do all devices cut at one layer that allows more"
    return (
        f"; phi stays 0: it saves less than {LEAST_GAIN_OF_QUARTER:.0%} of any turn for each "
        "quarter of a mini-batch"
    )
