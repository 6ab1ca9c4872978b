"""What somebody who may publish, but is nobody of the run, does to it."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator

import numpy as np

from benchmarks.hostile.attack import VICTIM, Forger, RunAttack
from benchmarks.hostile.site import MEMBER
from runtime.errors import BusError
from runtime.wire.commands import Assignment, OptimizerSpec, Refused, Stop
from runtime.wire.fields import Message
from runtime.wire.frames import Frame, FrameKind, StepId, decode_chunk, encode_chunks
from runtime.wire.published import CoordinatorStatus, DeviceStatus
from runtime.wire.run_control import ControlRequest

SECONDS = 3.0
"""How long what is repeated goes on."""
GHOSTS = 300


def _assignment(run: int, *, seed: int = 0) -> Assignment:
    return Assignment(
        run=run,
        network="mlp",
        options={},
        loss="cross_entropy",
        seed=seed,
        batch_size=16,
        held_out=0.0,
        max_evaluation_samples=10,
        num_classes=10,
        optimizer=OptimizerSpec(),
        carry_state=True,
    )


async def _repeat(forger: Forger, *messages: Message) -> None:
    """Command the victim over and over, in whatever it is at."""
    end_s = time.monotonic() + SECONDS
    while time.monotonic() < end_s:
        for message in messages:
            await forger.command(message.encode())
        await asyncio.sleep(0.05)


async def _stop(forger: Forger) -> None:
    secret = secrets.token_hex(16)
    await _repeat(forger, Stop(run=forger.site.run), Stop(run=forger.site.run, secret=secret))


async def _assign(forger: Forger) -> None:
    await _repeat(forger, _assignment(forger.site.run ^ 1))


async def _reassign(forger: Forger) -> None:
    await _repeat(forger, _assignment(forger.site.run, seed=1))


async def _join_far_ahead(forger: Forger) -> None:
    join = forger.site.joins[VICTIM]
    await forger.command(join.model_copy(update={"round": 2**32 - 1}).encode())


async def _join_again(forger: Forger) -> None:
    for _ in range(20):
        join = forger.site.joins[VICTIM]
        await forger.command(join.model_copy(update={"cut": join.cut + 1}).encode())
        await asyncio.sleep(SECONDS / 20)


async def _steps(forger: Forger) -> AsyncIterator[tuple[StepId, bytes]]:
    """Steps whose smashed data the victim has just sent, for some seconds; with a chunk of them."""
    heard, end_s = forger.site.heard, time.monotonic() + SECONDS
    while not heard.empty():
        heard.get_nowait()
    last = 0
    while (left_s := end_s - time.monotonic()) > 0:
        try:
            event = await asyncio.wait_for(heard.get(), left_s)
        except TimeoutError:
            return
        if event.topic == forger.site.topics.up(VICTIM, "smashed"):
            step = decode_chunk(event.payload).step
            if last < step.round <= forger.site.rounds[-1].round + 1:  # Not what was forged.
                last = step.round
                yield step, bytes(event.payload)


async def _say_frame(forger: Forger, topic: str, frame: Frame) -> None:
    for chunk in encode_chunks(frame, chunk_bytes=200_000):
        await forger.say(topic, bytes(chunk))


async def _gradients(forger: Forger) -> None:
    gradient = np.full((16, 6, 14, 14), 1e3, np.float32)
    async for step, _ in _steps(forger):
        frame = Frame(FrameKind.GRADIENT, step, (gradient,))
        await _say_frame(forger, forger.site.topics.down(VICTIM, "gradient"), frame)


async def _models(forger: Forger) -> None:
    kernel, bias = np.full((6, 1, 5, 5), 1e3, np.float32), np.zeros(6, np.float32)
    async for step, _ in _steps(forger):
        following = StepId(step.run, step.round + 1, 0, 0)
        frame = Frame(FrameKind.MODEL, following, (kernel, bias))
        for _ in range(5):
            await _say_frame(forger, forger.site.topics.cluster_model(0), frame)
            await asyncio.sleep(0.02)


async def _answers(forger: Forger) -> None:
    smashed, labels = np.full((16, 6, 14, 14), 1e3, np.float32), np.zeros(16, np.uint8)
    async for step, _ in _steps(forger):
        following = StepId(step.run, step.round + 1, 0, 0)
        frame = Frame(FrameKind.SMASHED, following, (smashed, labels))
        await _say_frame(forger, forger.site.topics.up(VICTIM, "smashed"), frame)


async def _replay(forger: Forger) -> None:
    recorded = [chunk async for _, chunk in _steps(forger)]
    join = forger.site.joins[VICTIM].encode()
    await asyncio.sleep(1.0)
    for chunk in recorded[-20:] * 5:
        await forger.say(forger.site.topics.up(VICTIM, "smashed"), chunk)
        await forger.command(join)


async def _offline(forger: Forger) -> None:
    status = _status(forger.site.sessions[VICTIM], state="offline")
    for _ in range(10):
        await forger.say(forger.site.topics.status(VICTIM), status, retain=True)
        await asyncio.sleep(SECONDS / 10)


async def _older(forger: Forger) -> None:
    topics, other = forger.site.topics, "0" * 16
    await forger.say(topics.status(VICTIM), _status(other), retain=True)
    status = CoordinatorStatus(state="online", session=other, since_unix_s=0)
    await forger.say(topics.coordinator_status, status.encode(), retain=True)


def _status(session: str, *, state: str = "online") -> bytes:
    fields = {"state": state, "session": session, "since_unix_s": 0}
    return DeviceStatus.model_validate(fields).encode()


async def _take_client_ids(forger: Forger) -> None:
    site = forger.site
    session = site.sessions[VICTIM]
    assert site.status is not None
    tried = (VICTIM, session, f"{VICTIM}-{session}", "coordinator",
             f"coordinator-{site.status.session}")  # fmt: skip
    member = f"devices/{MEMBER}"
    for client_id in tried:
        with contextlib.suppress(BusError):
            async with await site.way.connect(member, client_id=client_id):
                await asyncio.sleep(0.3)


async def _refuse(forger: Forger) -> None:
    refused = Refused(run=forger.site.run, reason="no room")
    await forger.say(forger.site.topics.reply(VICTIM), refused.encode())


async def _pause(forger: Forger) -> None:
    request = ControlRequest(action="pause", request=secrets.token_hex(8), by="nobody")
    await forger.say(forger.site.topics.control, request.encode())
    await asyncio.sleep(12.0)
    request = ControlRequest(action="continue", request=secrets.token_hex(8), by="nobody")
    await forger.say(forger.site.topics.control, request.encode())


RUBBISH = (
    *(b"", b"\x00", b"null", b"[]", b'{"kind":"ready"}', b'{"kind":"assignment","run":-1}'),
    b'{"state":"online","session":"x","since_unix_s":NaN}',
    b'{"a":' * 20_000,
    b"[" * 60_000,
    b'{"run":1e400,"round":' + b"9" * 5000 + b"}",
    b"CP" + bytes(range(256)) * 4,
    secrets.token_bytes(3000),
)


def _leaves(forger: Forger) -> list[str]:
    topics = forger.site.topics
    return [
        *(topics.status(VICTIM), topics.profile(VICTIM), topics.metrics(VICTIM)),
        *(topics.reply(VICTIM), topics.command(VICTIM), topics.cluster_model(0)),
        *(topics.up(VICTIM, leaf) for leaf in ("smashed", "weights", "probe")),
        *(topics.down(VICTIM, leaf) for leaf in ("model", "gradient", "graphs", "probe")),
        *(topics.coordinator_status, topics.plan, topics.round, topics.control),
    ]


async def _rubbish(forger: Forger) -> None:
    for topic in _leaves(forger):
        for payload in RUBBISH:
            await forger.say(topic, payload)


async def _retained(forger: Forger) -> None:
    topics = forger.site.topics
    for topic in _leaves(forger):
        await forger.say(topic, b'{"not": "ours"}', retain=True)
    for index in range(GHOSTS):
        await forger.say(topics.status(f"ghost-{index}"), b"[]", retain=True)


async def _ghosts(forger: Forger) -> None:
    topics = forger.site.topics
    for index in range(GHOSTS):
        await forger.say(topics.status(f"ghost-{index}"), _status(f"{index}"), retain=True)
    await asyncio.sleep(SECONDS)
    for index in range(GHOSTS):
        await forger.say(topics.status(f"ghost-{index}"), b"", retain=True)


async def _large(forger: Forger) -> None:
    for topic in _leaves(forger):
        await forger.say(topic, b" " * 1_900_000)


async def _flood(forger: Forger) -> None:
    topics = forger.site.topics
    end_s = time.monotonic() + 2 * SECONDS
    while time.monotonic() < end_s:
        await asyncio.gather(
            *(forger.say(topics.reply(VICTIM), b'{"kind":"x"}') for _ in range(10)),
            *(forger.say(topics.command(VICTIM), b"0") for _ in range(10)),
        )


ATTACKS = (
    RunAttack("stop", "a forged stop", "the device left the run", _stop, is_quick=True),
    RunAttack("assignment", "a forged assignment, in mid-turn too",
           "the device forgot its job, and was asked in vain for ever", _assign, is_quick=True),
    RunAttack("reassignment", "a forged assignment of the same run", "", _reassign),
    RunAttack("join-ahead", "a forged join of a round far ahead",
           "", _join_far_ahead, is_quick=True),
    RunAttack("join-again", "a forged join of the turn that it is in", "", _join_again),
    RunAttack("gradients", "forged gradients", "", _gradients),
    RunAttack("models", "forged device-side models", "", _models),
    RunAttack("answers", "forged smashed data in a device's name", "", _answers),
    RunAttack("replay", "replayed frames and joins", "", _replay),
    RunAttack("offline", "a forged `offline`, again and again", "", _offline),
    RunAttack("since-0", "statuses of `since_unix_s: 0`, of a device and the coordinator",
           "either program ended", _older, is_quick=True),
    RunAttack("client-ids", "client ids as statuses tell them",
           "connections were taken over", _take_client_ids),
    RunAttack("pause", "a forged request to pause", "", _pause),
    RunAttack("rubbish", "malformed JSON and frames on every topic", "", _rubbish, is_quick=True),
    RunAttack("retained", "retained rubbish on every topic", "", _retained),
    RunAttack("ghosts", f"{GHOSTS} devices that are not there", "", _ghosts),
    RunAttack("large", "messages of 1.9 MB on every topic", "", _large),
    RunAttack("flood", "as many replies and commands as the broker takes", "", _flood),
)  # fmt: skip
LAST = RunAttack("refusal", "a forged refusal in a device's name", "", _refuse)
"""After it no run is as it was."""
