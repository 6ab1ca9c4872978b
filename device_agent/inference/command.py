"""`cpsl-agent infer`: predict a device's own samples by both halves, once."""

import argparse
import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_agent.agent.endpoint import DeviceEndpoint
from device_agent.inference.client import InferenceClient
from runtime.bus.broker_url import TlsFiles
from runtime.bus.mqtt_bus import MqttBus
from runtime.datasets.inputs import Asked, load_asked
from runtime.errors import StorageError
from runtime.inference.half import Floats, OnnxHalf
from runtime.inference.predictions import Predictions, batches, check_suffix
from runtime.offered import DEFAULT_CHUNK_BYTES
from runtime.wire.codecs.offered import choice_of
from runtime.wire.ownership import new_session
from runtime.wire.topics import Topics, check_name

_SAY_EVERY_S = 2.0

log = logging.getLogger("cpsl-agent")


@dataclass(frozen=True)
class InferenceSettings:
    """What to predict, and over which broker."""

    half: Path
    broker: str
    device: str
    site: str
    codec: str
    batch_size: int
    timeout_s: float
    num_threads: int
    tls: TlsFiles
    wait: bool


def infer(flags: argparse.Namespace, tls: TlsFiles) -> str:
    """Do what the flags say; what is to be printed."""
    settings = InferenceSettings(
        half=flags.half,
        broker=flags.broker,
        device=check_name("device id", flags.id),
        site=check_name("site", flags.site),
        codec=flags.codec,
        batch_size=flags.batch_size,
        timeout_s=flags.timeout,
        num_threads=flags.threads,
        tls=tls,
        wait=flags.wait,
    )
    choice_of(settings.codec)  # SettingsError for a name that is none.
    if flags.output is not None:
        check_suffix(flags.output.suffix)
    half = OnnxHalf.load(settings.half, "device", num_threads=settings.num_threads)
    asked = load_asked(
        flags.data,
        part=flags.part,
        base_dir=Path.cwd(),
        features=half.info.features,
        shape=half.sample_shape,
    )
    predictions, sent = asyncio.run(predict(settings, half, asked))
    if flags.output is not None:
        _write(flags.output, predictions)
    if not flags.json:
        return "" if flags.output else predictions.as_csv().rstrip("\n")
    document: dict[str, object] = {"network": half.info.network, "cut": half.info.cut}
    document |= {"round": half.info.round, "num_samples": len(predictions), **sent}
    document |= _right(predictions)
    rows = (
        {"output": str(flags.output)} if flags.output else {"predictions": list(predictions.rows())}
    )
    return json.dumps(document | rows)


async def predict(
    settings: InferenceSettings, half: OnnxHalf, asked: Asked
) -> tuple[Predictions, dict[str, int]]:
    """Predict all samples; with the bytes that travelled."""
    samples, info = asked.samples, half.info
    if asked.has_labels and info.classes:
        samples = samples.in_classes(info.classes, where="the data", numbers_count=True)
    async with await MqttBus.connect(
        settings.broker,
        client_id=f"{settings.device}-infer-{new_session()}",
        wait=settings.wait,
        on_waiting=_say,
        tls=settings.tls,
    ) as bus:
        client = InferenceClient(
            DeviceEndpoint(settings.device, bus, Topics(settings.site), DEFAULT_CHUNK_BYTES),
            info,
            codec=settings.codec,
            timeout_s=settings.timeout_s,
            say=_say,
        )
        async with asyncio.TaskGroup() as tasks:  # What ends the listening ends the waiting.
            listening = tasks.create_task(client.listen(bus.events()), name="listen")
            await client.open()
            outputs = await _all_outputs(
                client, lambda part: half.run(samples.x_of(part)),
                batches(len(samples), settings.batch_size), len(samples),
            )  # fmt: skip
            listening.cancel()
    labels = samples.y if asked.has_labels else None
    sent = {"sent_bytes": client.sent_bytes, "received_bytes": client.received_bytes}
    return Predictions(outputs, info.task, info.classes, asked.names, labels), sent


async def _all_outputs(
    client: InferenceClient,
    smash: Callable[[slice], Floats],
    parts: Sequence[slice],
    num_samples: int,
) -> Floats:
    """Compute the next batch's smashed data while the server half is at this one's."""
    loop, outputs, said_s = (
        asyncio.get_running_loop(),
        list[Floats](),
        asyncio.get_running_loop().time(),
    )
    coming = asyncio.create_task(asyncio.to_thread(smash, parts[0]))
    for number, part in enumerate(parts):
        smashed = await coming
        if number + 1 < len(parts):
            coming = asyncio.create_task(asyncio.to_thread(smash, parts[number + 1]))
        outputs.append(await client.predict(smashed))
        if loop.time() - said_s >= _SAY_EVERY_S:
            said_s = loop.time()
            log.info("predicted %d of %d samples", min(part.stop, num_samples), num_samples)
    return np.concatenate(outputs)


def _say(words: str) -> None:
    log.warning("%s", words)


def _right(predictions: Predictions) -> dict[str, object]:
    """How many classes are right, where labels are known; other figures need the edge server."""
    if predictions.task != "classes" or predictions.labels is None:
        return {}
    right = predictions.outputs.argmax(axis=1) == predictions.labels
    return {"accuracy": float(np.mean(right))}


def _write(path: Path, predictions: Predictions) -> None:
    try:
        path.write_bytes(predictions.as_file(path.suffix))
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    log.info("%d predictions written to %s", len(predictions), path)
