"""Spans of a round and its turns, if they were asked for: recorded once they are over.

A step lasts from when it can begin (its turn does, or all smashed data of the step before are here)
until all has come that follows from its gradients. So two steps overlap, as devices do.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from edge_coordinator.rounds.remote_cluster import RemoteCluster
from edge_coordinator.rounds.server_thread import OffLoopEdge
from runtime.service.spans import (
    Attributes,
    Span,
    is_recording,
    part_of,
    record,
    round_id,
    step_id,
    trace_id,
    turn_id,
)
from runtime.wire.frames import StepId


def record_round(clusters: Sequence[RemoteCluster], *, since_s: float, why_undone: str) -> None:
    """Record a round's training that began then, by the monotonic clock."""
    if not is_recording() or not clusters:
        return
    step = clusters[0].first_step
    about = {"round": step.round, "clusters": len(clusters)}
    if why_undone:  # It is tried again: that try is the round, with all its turns below it.
        _record("undone", step, since_s, about | {"why": why_undone}, parent=round_id(step))
    else:
        _record("round", step, since_s, about, own=round_id(step))


def record_turn(
    cluster: RemoteCluster, edge: OffLoopEdge | None, *, since_s: float, name: str = "turn"
) -> None:
    """Record a cluster's turn that is over, its steps, and what the server did for each."""
    if not is_recording():
        return
    first = cluster.first_step
    about: Attributes = {
        "cluster": first.cluster,
        "devices": ", ".join(sorted({*cluster.finished, *cluster.lost})),
        "lost": ", ".join(sorted(cluster.lost)),
    }
    _record(name, first, since_s, about, own=turn_id(first), parent=round_id(first))
    for epoch, begin_s, end_s in _steps(cluster, since_s):
        step = replace(first, epoch=epoch)
        _record(
            "step", step, begin_s, {"epoch": epoch}, end_s, own=step_id(step), parent=turn_id(step)
        )
    for epoch, began_s, ended_s in edge.worked if edge is not None else ():
        step, ago_s = replace(first, epoch=epoch), time.monotonic() - ended_s
        part_of(step, "server", seconds=ended_s - began_s, attributes={}, ago_s=ago_s)


def _steps(cluster: RemoteCluster, since_s: float) -> Iterator[tuple[int, float, float]]:
    """Local epochs of a turn that is over; when each began and ended."""
    now_s, arrived_s = time.monotonic(), cluster.arrived_at_s
    if not arrived_s:  # The devices trained by themselves, or none of them came so far.
        for epoch in sorted({0, cluster.local_epochs - 1}):
            yield epoch, since_s, now_s
    for epoch in range(min(cluster.local_epochs, len(arrived_s) + 1) if arrived_s else 0):
        begin_s = arrived_s[epoch - 1] if epoch else since_s
        yield epoch, begin_s, arrived_s[epoch + 1] if epoch + 1 < len(arrived_s) else now_s


def _record(
    name: str,
    step: StepId,
    start_s: float,
    attributes: Attributes,
    end_s: float | None = None,
    *,
    own: int | None = None,
    parent: int | None = None,
) -> None:
    """Record what began and ended (now, unless it did before) by the monotonic clock."""
    ahead_ns, now_s = time.time_ns() - time.monotonic_ns(), time.monotonic()

    def unix_ns(at_s: float) -> int:
        return ahead_ns + round(at_s * 1e9)

    start_ns, end_ns = unix_ns(start_s), unix_ns(now_s if end_s is None else end_s)
    of_round = trace_id(step.run, step.round)
    record(Span(name, of_round, start_ns, end_ns, attributes, own, parent))
