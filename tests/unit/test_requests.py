"""Waiting for answers: what came in time counts, and a broken connection teaches nothing."""

import asyncio
import time

import numpy as np

from edge_coordinator.devices.deadlines import Allowance
from edge_coordinator.devices.outstanding import LateAnswers
from edge_coordinator.devices.requests import Exchange, Inquiry
from edge_coordinator.devices.timers import AnswerTimers
from runtime.protocol.events import FrameArrived
from runtime.protocol.gathering import Gathering
from runtime.wire.frames import (
    Frame,
    FrameKind,
    StepId,
    Tensor,
    decode_chunk,
    encode_chunks,
    specs_of,
)
from tests.turn import JOIN, JOINED

STEP = StepId(run=7, round=3, cluster=0, epoch=0)
TENSORS: tuple[Tensor, ...] = (np.zeros(50, np.float32),)
FRAME = Frame(FrameKind.SMASHED, STEP, TENSORS)
ALLOWANCE = Allowance(0.0, 0.1, is_learned=True)


def _exchange() -> Exchange:
    async def ask_again(_: str) -> None: ...

    now_s = time.monotonic()
    timers = AnswerTimers({"a": ALLOWANCE}, now_s=now_s)
    gathering = Gathering(FrameKind.SMASHED, STEP, {"a": specs_of(TENSORS)})
    return Exchange(gathering, ask_again, timers=timers, asked_at_s=now_s)


async def test_an_answer_that_came_while_the_loop_was_busy_past_the_deadline_counts() -> None:
    exchange = _exchange()
    gathered = asyncio.create_task(exchange.gathered())
    await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251 - so that the deadline and the answer are due together
    exchange.post(FrameArrived("a", FRAME))
    assert list((await gathered).answers) == ["a"]
    assert not exchange.late
    assert exchange.took_s["a"] >= 0.2


async def test_a_reply_that_came_while_the_loop_was_busy_past_the_deadline_counts() -> None:
    inquiry = Inquiry("a", JOIN, ALLOWANCE)
    assert await inquiry.next() is None
    reply = asyncio.create_task(inquiry.next())
    await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251
    inquiry.post(JOINED)
    assert await reply == JOINED


async def test_what_an_answer_took_across_a_broken_connection_is_not_learned() -> None:
    exchange = _exchange()
    exchange.pause()
    exchange.resume()
    exchange.post(FrameArrived("a", FRAME))
    await exchange.gathered()
    assert list(exchange.answered_at_s) == ["a"]
    assert not exchange.took_s


async def test_a_late_device_owes_until_the_last_part_of_just_that_answer_has_come() -> None:
    settled: list[str] = []
    late_answers = LateAnswers(lambda: settled.append("can be asked"))
    late_answers.note("a", FRAME.kind, STEP, on_answer=lambda: settled.append("came"), most_s=60.0)
    other = Frame(FRAME.kind, StepId(7, 3, 1, 0), TENSORS)
    for frame in (other, FRAME):
        assert "a" in late_answers
        assert late_answers.reasons == {"a": "was late, and is at its answer of round 3 still"}
        for payload in encode_chunks(frame, chunk_bytes=100):
            assert not settled
            late_answers.receive("a", decode_chunk(memoryview(payload)))
    assert settled == ["came", "can be asked"]
    assert not late_answers.reasons


async def test_a_late_device_that_never_answers_owes_no_longer_than_was_said() -> None:
    settled = asyncio.Event()
    late_answers = LateAnswers(settled.set)
    late_answers.note("a", FRAME.kind, STEP, on_answer=settled.clear, most_s=0.01)
    await settled.wait()
    assert "a" not in late_answers
