"""A round's plan in a few lines: what it is, who trains with whom, and why."""

from rich.text import Text

from edge_coordinator.formatting import cut_words, short_seconds
from runtime.wire.fields import as_words
from runtime.wire.published import ClusterReport, PlanReport

_MOST_NAMED = 12
"""Of more devices than this, clusters are told by their sizes."""


def plan_lines(plan: PlanReport) -> list[Text]:
    """Say what a plan is and what it rests on; of one by hand the reason goes without saying."""
    predicted = "" if plan.predicted_s is None else f", {short_seconds(plan.predicted_s)} predicted"
    what = f"{plan.method}, cut after {cut_words(plan)}, {len(plan.clusters)} clusters{predicted}"
    lines = {
        "plan": what,
        "clusters": _clusters(plan),
        "why": plan.reason if plan.predicted_s is not None else "",
        "assumed": "; ".join(f"{device}: {what}" for device, what in plan.assumed.items()),
        "left out": "; ".join(f"{device}: {why}" for device, why in plan.left_out.items()),
    }
    return [
        Text.assemble((f"{name} ", "dim"), as_words(said)) for name, said in lines.items() if said
    ]


def _clusters(plan: PlanReport) -> str:
    if sum(len(cluster.devices) for cluster in plan.clusters) <= _MOST_NAMED:
        return "; ".join(_cluster(cluster, plan.cut_layer) for cluster in plan.clusters)
    return "of " + ", ".join(str(len(cluster.devices)) for cluster in plan.clusters) + " devices"


def _cluster(cluster: ClusterReport, cut_layer: str) -> str:
    told = [short_seconds(cluster.predicted_s)] if cluster.predicted_s else []
    told += [f"{cluster.micro_batches} micro-batches"] if cluster.micro_batches > 1 else []
    told += [f"phi {cluster.phi:g}"] if cluster.phi else []
    predicted = f" ({', '.join(told)})" if told else ""
    sizes = [f": {size}" for size in cluster.batch_sizes or ()] or [""] * len(cluster.devices)
    layers = cluster.cut_layers or (cut_layer,) * len(cluster.devices)
    named = (
        device + size + (f" after {layer}" if layer != cut_layer else "")
        for device, size, layer in zip(cluster.devices, sizes, layers, strict=True)
    )
    return ", ".join(named) + predicted
