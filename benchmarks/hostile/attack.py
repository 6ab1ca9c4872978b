"""What an attack is, and what is said of the run that it was tried on."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from operator import sub
from statistics import median
from typing import Literal

from benchmarks.hostile.site import NUM_HONEST, Site, honest_names
from runtime.bus.mqtt_bus import MqttBus
from runtime.errors import BusError
from runtime.wire.published import RoundReport

CALM_ROUNDS = 3
"""So many undisturbed rounds in a row, and the attack is over."""
LIMIT_S = 45.0
STOOD_S = 8.0
"""A run that stood longer than this was disturbed."""
FELL = 0.1
"""As was one whose test accuracy fell by more."""
VICTIM = "dev-1"

Verdict = Literal["held", "degraded", "not defended"]


@dataclass(frozen=True)
class Judgement:
    """What a run did about an attack."""

    verdict: Verdict
    how: str = ""

    def __str__(self) -> str:
        """Say it in a cell of a table."""
        return f"**{self.verdict}**{': ' if self.how else ''}{self.how}"


@dataclass(frozen=True)
class Forger:
    """Somebody who is connected to the broker, and knows what goes on there."""

    site: Site
    bus: MqttBus

    async def say(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish whatever it is; a broker may refuse, or end the connection."""
        with contextlib.suppress(BusError, TimeoutError):
            async with asyncio.timeout(2.0):
                await self.bus.publish(topic, payload, retain=retain)

    async def command(self, payload: bytes) -> None:
        """Command the victim."""
        await self.say(self.site.topics.command(VICTIM), payload)


@dataclass(frozen=True)
class RunAttack:
    """One kind of attack on a run that goes on."""

    name: str
    """As `--only` takes it."""
    what: str
    """For people."""
    before: str
    """What the first release did, where that was tried."""
    do: Callable[[Forger], Awaitable[str | None]]
    """Attack; what is to be told of it beside what the run did, if anything."""
    is_quick: bool = False


async def try_on(attack: RunAttack, site: Site, *, member: str) -> Judgement:
    """Attack a run, watch it until it is calm again, and say what happened."""
    before, num_before = site.rounds[-1], len(site.rounds)
    usual_s = median(report.round_s for report in site.rounds[-10:])
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    async with await site.way.connect(member) as bus:
        told = await attack.do(Forger(site, bus))
    await _until_calm(site)
    reported_s = [*site.reported_s[num_before - 1 :], loop.time()]
    outcome = judged(
        site, site.rounds[num_before:], before, usual_s=usual_s,
        took_s=loop.time() - start_s, longest_s=max(map(sub, reported_s[1:], reported_s)),
    )  # fmt: skip
    return replace(outcome, how="; ".join(each for each in (told, outcome.how) if each))


async def _until_calm(site: Site) -> None:
    """Wait for some undisturbed rounds in a row."""
    loop, calm = asyncio.get_running_loop(), 0
    end_s = loop.time() + LIMIT_S
    while calm < CALM_ROUNDS and loop.time() < end_s:
        following = site.rounds[-1].round + 1
        if not await site.until_round(following, limit_s=end_s - loop.time()):
            return
        calm = 0 if _disturbed(site.rounds[-1]) else calm + 1


def _disturbed(report: RoundReport) -> list[str]:
    """Devices without whose work a round ended, of those that do no harm."""
    lost = [device for device in report.lost if device in honest_names()]
    return lost or ([""] if report.num_devices < NUM_HONEST else [])


def judged(
    site: Site,
    rounds: list[RoundReport],
    before: RoundReport,
    *,
    usual_s: float,
    took_s: float,
    longest_s: float,
) -> Judgement:
    """Say what became of a run."""
    if died := site.has_died():
        return Judgement("not defended", died)
    if not rounds or len(rounds) < CALM_ROUNDS or any(map(_disturbed, rounds[-CALM_ROUNDS:])):
        return Judgement("not defended", f"no undisturbed rounds within {took_s:.0f} s{_why(site)}")
    said = []
    if disturbed := [report for report in rounds if _disturbed(report)]:
        reason = next((why for each in disturbed for why in each.lost.values()), "")
        rounds_ = "a round" if len(disturbed) == 1 else f"{len(disturbed)} rounds"
        said.append(f"{rounds_} without a device{f' ({reason})' if reason else ''}")
    if longest_s > max(STOOD_S, 10 * usual_s):
        said.append(f"the run stood for {longest_s:.0f} s")
    accuracy = [report.test_accuracy for report in rounds if report.test_accuracy is not None]
    if before.test_accuracy is not None and accuracy:
        fell = before.test_accuracy - min(accuracy)
        if fell > FELL:
            said.append(f"accuracy fell by {fell:.0%}, and was {accuracy[-1]:.0%} in the end")
    return Judgement("degraded", "; ".join(said)) if said else Judgement("held")


def _why(site: Site) -> str:
    left_out = site.plan.left_out if site.plan else {}
    reasons = [f"{device} {why}" for device, why in left_out.items() if device in honest_names()]
    phase = site.status.phase if site.status else ""
    return "".join(f"; {each}" for each in (*reasons[:1], phase) if each)
