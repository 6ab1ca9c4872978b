"""A cluster's step over MQTT beside the same arithmetic in one process, and where the rest goes.

    python -m benchmarks.cluster_step [--devices K] [--batch-size B]... [--cut LAYER] [--json]

A step is one local epoch of a cluster: the devices' forward passes, the upload of their smashed
data, the server's step, the download of the gradients, the devices' backward passes. Over MQTT the
agents are the real program in processes of their own, beside a broker on this machine's loopback;
in one process the devices take their turns in one thread. Turns of both alternate. Both must end
in the same bits, and tensors must travel at their raw size and at most one per cent.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from rich.console import Console

from benchmarks.cluster_step.bus_side import BusSide, bus_side
from benchmarks.cluster_step.result import Result, Wire
from benchmarks.cluster_step.session import BusTurn, PlainTurn, StepSession, make_session
from benchmarks.cluster_step.table import show
from edge_coordinator.local.agents import AgentProcess, local_agents
from edge_coordinator.local.broker import local_broker
from edge_coordinator.rounds.server_thread import EdgeWorker
from runtime.datasets.sources import load_source
from runtime.models.load import input_shape_of, layer_shapes, load_network
from runtime.service.process import keep_freed_memory
from runtime.wire.chunks.inbox import FrameInbox, leaf_of
from runtime.wire.frames import Frame, FrameKind, StepId, TensorSpec, encode_chunks, specs_of

MAX_OVERHEAD = 0.01
OVERHEAD_COUNTS_FROM_BYTES = 10_000
"""Tensors smaller than this have a header that shows."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; 1 if bits differ or the wire carries too much."""
    flags = _parser().parse_args(arguments)
    keep_freed_memory(of_clusters=True)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="cluster-step-") as folder:
        results = asyncio.run(_measure(flags, Path(folder)))
    title = f"{flags.model} cut at {flags.cut}, {flags.devices} devices, ms a step"
    show(results, title, Console(stderr=flags.json))
    if flags.json:
        print(json.dumps([_as_json(result) for result in results]))
    heavy = [wire for result in results for wire in result.wire.values() if not _is_light(wire)]
    return 1 if heavy else 0


async def _measure(flags: argparse.Namespace, folder: Path) -> list[Result]:
    overrides = _overrides(flags, folder)
    data = load_source(f"npz:{folder / 'noise.npz'}", base_dir=folder)
    sessions = [
        make_session(
            overrides | {"training.batch_size": batch_size},
            data,
            run=run,
            num_steps=flags.steps // flags.turns,
        )
        for run, batch_size in enumerate(flags.batch_size or [16, 128], start=1)
    ]
    settings = sessions[0].job.settings
    async with (
        local_broker(flags.broker, None) as broker,
        local_agents(settings, url=broker.url, base_dir=Path.cwd(), log_dir=folder) as agents,
    ):
        return [
            await _measure_one(session, flags.turns, url=broker.url, agents=agents)
            for session in sessions
        ]


async def _measure_one(
    session: StepSession, num_turns: int, *, url: str, agents: Sequence[AgentProcess]
) -> Result:
    over_bus, in_process = [], []
    with EdgeWorker(num_threads=1) as worker:
        async with bus_side(session.job, url=url, agents=agents) as side:
            for round_ in range(1, num_turns + 2):
                over_bus.append(await session.turn_over_bus(round_, side, worker))
                in_process.append(await session.turn_in_process(round_))
            if not session.same_weights():
                raise SystemExit("the two sides ended in different weights")
            return _result(session, over_bus[1:], in_process[1:], side)  # The first warms up.


def _result(
    session: StepSession,
    over_bus: Sequence[BusTurn],
    in_process: Sequence[PlainTurn],
    side: BusSide,
) -> Result:
    step_s = median(s for turn in over_bus for s in turn.step_s)
    plain_s = median(s for turn in in_process for s in turn.step_s)
    num_steps = len(over_bus[0].step_s) + 1
    # What else the machine did shows least in the quieter half, and means add up.
    quiet = sorted(over_bus, key=lambda turn: sum(turn.step_s))[: -(-len(over_bus) // 2)]
    slowest = [max(turn.device_s.values()) for turn in in_process]
    server = [turn.server_s for turn in in_process]
    beside = median(t.turn_s - sum(t.step_s) for t in over_bus)
    plain_beside = median(t.turn_s - sum(t.step_s) for t in in_process)
    one_device = [sum(t.device_s.values()) / len(t.device_s) for t in in_process]
    return Result(
        batch_size=session.job.settings.training.batch_size,
        num_steps=num_steps * len(over_bus),
        over_mqtt_ms=1e3 * step_s,
        in_process_ms=1e3 * plain_s,
        best_case_ms=1e3 * (median(slowest) + median(server)),
        turn_overhead_ms=1e3 * (beside - plain_beside),
        phases_ms={
            name: 1e3 * float(np.mean([turn.phases_s[name] for turn in quiet]))
            for name in quiet[0].phases_s
        },
        serialising_ms=1e3 * _serialising_s(_smashed_specs(session)) * 2,
        in_process_device_ms=1e3 * median(one_device),
        in_process_server_ms=1e3 * median(server),
        in_process_ran_ms=1e3 * median(turn.ran_s for turn in in_process),
        core_ms={
            name: (
                1e3 * float(np.mean([turn.core_times[name].ran_s for turn in quiet])),
                1e3 * float(np.mean([turn.core_times[name].waited_s for turn in quiet])),
            )
            for name in quiet[0].core_times
        },
        wire=dict(_wires(session, side)),
    )


def _smashed_specs(session: StepSession) -> tuple[TensorSpec, ...]:
    job = session.job
    assert job.cut is not None
    batch_size = job.settings.training.batch_size
    return (TensorSpec("<f4", (batch_size, *job.smashed_shape(job.cut))),)


def _serialising_s(specs: Sequence[TensorSpec], *, num_repeats: int = 50) -> float:
    """Encode one such frame and decode it again, without a network."""
    tensors = tuple(np.zeros(spec.shape, spec.dtype) for spec in specs)
    frame = Frame(FrameKind.SMASHED, StepId(1, 1, 0, 0), tensors)
    inbox = FrameInbox(lambda _kind, _step: specs)
    seconds = []
    for _ in range(num_repeats):
        start_s = perf_counter()
        for chunk in encode_chunks(frame, chunk_bytes=256 * 1024):
            inbox.feed(memoryview(chunk), kind=frame.kind)
        seconds.append(perf_counter() - start_s)
    return median(seconds)


def _wires(session: StepSession, side: BusSide) -> Iterator[tuple[str, Wire]]:
    smashed_bytes = sum(spec.num_bytes for spec in _smashed_specs(session))
    assert session.job.cut is not None
    turn = session.over_bus.turn(cut=session.job.cut, round_=1, learning_rate=0.0)
    model_bytes = sum(spec.num_bytes for spec in turn.device_specs())
    for kind, raw_bytes in (
        (FrameKind.SMASHED, smashed_bytes),
        (FrameKind.GRADIENT, smashed_bytes),
        (FrameKind.MODEL, model_bytes),
        (FrameKind.WEIGHTS, model_bytes),
    ):
        mean_bytes = side.bus.wire_bytes[kind] / max(1, side.bus.num_frames[kind])
        yield leaf_of(kind), Wire(raw_bytes, mean_bytes)
    whole = tuple(t.numpy() for t in session.over_bus.network.state_dict().values())
    frame = Frame(FrameKind.MODEL, StepId(1, 1, 0, 0), whole)
    chunk_bytes = session.job.settings.broker.chunk_bytes
    sent = sum(len(chunk) for chunk in encode_chunks(frame, chunk_bytes=chunk_bytes))
    raw = sum(spec.num_bytes for spec in specs_of(whole))
    yield "whole network", Wire(raw, sent)


def _is_light(wire: Wire) -> bool:
    return wire.raw_bytes < OVERHEAD_COUNTS_FROM_BYTES or wire.overhead <= MAX_OVERHEAD


def _as_json(result: Result) -> dict[str, object]:
    fields: dict[str, object] = {**vars(result), "ratio": result.ratio}
    fields["wire"] = {name: vars(wire) for name, wire in result.wire.items()}
    return fields


# Settings


def _overrides(flags: argparse.Namespace, folder: Path) -> dict[str, object]:
    path = folder / "noise.npz"
    _write_noise(path, flags)
    overrides: dict[str, object] = {
        "model.name": flags.model,
        "plan.mode": "by_hand",
        "plan.cut": flags.cut,
        "plan.clusters": 1,
        "devices.count": flags.devices,
        "data.source": f"npz:{path}",
    }
    if flags.processes is not None:
        overrides["devices.processes"] = flags.processes
    return overrides


def _write_noise(path: Path, flags: argparse.Namespace) -> None:
    """Write samples that fit the network, two batches for each device."""
    network = load_network(flags.model, {}, seed=0)
    shape = input_shape_of(network)
    num_classes = layer_shapes(network, shape)[-1][0]
    count = 2 * flags.devices * max(flags.batch_size or [16, 128])
    generator = np.random.default_rng(0)
    x = generator.standard_normal((count, *shape), dtype=np.float32)
    y = generator.integers(0, num_classes, count)
    np.savez(path, x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--devices", type=int, default=5, help="devices of the one cluster (5)")
    add("--batch-size", type=int, action="append", help="again for another one (16 and 128)")
    add("--cut", default="pool1", help="last layer on the device")
    add("--model", default="lenet", help="a network of classes, by name")
    add("--steps", type=int, default=150, help="steps of each side and batch size (150)")
    add("--turns", type=int, default=10, help="in so many turns (10)")
    add("--processes", type=int, help="that host the devices; one a core by default")
    add("--broker", default="auto", choices=["auto", "mosquitto", "amqtt"])
    add("--json", action="store_true", help="one line of JSON; the table goes to stderr")
    return parser


if __name__ == "__main__":
    sys.exit(main())
