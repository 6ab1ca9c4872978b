"""The brokers of this machine, each with a short real job: `python -m benchmarks.brokers`.

Each that is installed is started on loopback; `python -m benchmarks.brokers aedes nats` tries only
these. Aedes is looked for by Node, so NODE_PATH may say where it is. What is tried: that a message
is retained, also for a filter with a wildcard, that a last will is published, that a chunk of
256 kB passes and how long that takes, and a job with two agents by a given plan. It has to end in
the same weights on every broker.

The coordinator comes first: RabbitMQ gives a wildcard nothing that is retained, so it would not
hear of devices that were there before.
"""

import argparse
import asyncio
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.brokers.broker_programs import BROKERS, NotHereError
from benchmarks.programs import CPSL, Program, agents, run_directory, run_to_end, weights_sha256
from runtime.bus.bus import Delivery, Will
from runtime.bus.mqtt_bus import MqttBus
from runtime.errors import BusError

CHUNK_BYTES = 256_000
PATIENCE_S, JOB_S = 60.0, 240.0
JOB = ("--devices", "2", "--plan", "by_hand", "--rounds", "2", "--local-epochs", "2")


@dataclass
class BrokerOutcome:
    """What held on one broker."""

    name: str
    version: str = "-"
    is_retained: bool = False
    is_retained_for_filters: bool = False
    is_will_told: bool = False
    chunk_s: float = float("nan")
    weights: str = ""
    job_s: float = float("nan")
    trouble: str = ""

    def row(self) -> str:
        """Write it as one line."""
        if self.trouble:
            return f"{self.name:22} {self.trouble}"
        held = (self.is_retained, self.is_retained_for_filters, self.is_will_told)
        return (
            f"{self.name:22} {self.version:6} {' '.join(f'{_yes(one):8}' for one in held)} "
            f"{1000 * self.chunk_s:8.1f} {self.job_s:6.1f} {self.weights[:12]}"
        )


def _yes(holds: bool) -> str:  # noqa: FBT001
    return "yes" if holds else "NO"


async def try_broker(name: str) -> BrokerOutcome:
    """Start a broker, and try what is asked of one."""
    outcome = BrokerOutcome(name)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        try:
            opened: AbstractAsyncContextManager[str] = BROKERS[name](folder)
            async with opened as url:
                await _try_messages(url, outcome)
                await _try_job(url, folder, outcome)
        except NotHereError as error:
            outcome.trouble = f"not installed here: {error}"
        except (BusError, RuntimeError, TimeoutError) as error:
            outcome.trouble = f"FAILED: {type(error).__name__}: {error}"
    return outcome


async def _try_messages(url: str, outcome: BrokerOutcome) -> None:
    topic = f"try/{secrets.token_hex(4)}"
    async with asyncio.timeout(PATIENCE_S), _bus(url) as bus:
        outcome.version = bus.mqtt_version
        await bus.publish(f"{topic}/retained", b"kept", retain=True)
        outcome.is_retained = await _first(bus, f"{topic}/retained") == b"kept"
        with suppress(TimeoutError):
            async with asyncio.timeout(3):
                outcome.is_retained_for_filters = await _first(bus, f"{topic}/+") == b"kept"
        await bus.unsubscribe(f"{topic}/+")
        payload = secrets.token_bytes(CHUNK_BYTES)
        await bus.subscribe(f"{topic}/chunk")
        start_s = time.perf_counter()
        await bus.publish(f"{topic}/chunk", payload, retain=False)
        if await _next(bus) != payload:
            raise RuntimeError("a chunk came back changed")
        outcome.chunk_s = time.perf_counter() - start_s
        await bus.subscribe(f"{topic}/will")
        will = Will(f"{topic}/will", b"gone")
        mortal = await MqttBus.connect(url, client_id=secrets.token_hex(8), will=will, wait=False)
        assert mortal._link is not None  # noqa: SLF001  # There is no other way to die.
        mortal._link.abort("cut")  # noqa: SLF001
        outcome.is_will_told = await _next(bus) == b"gone"
        await mortal.close()


async def _try_job(url: str, folder: Path, outcome: BrokerOutcome) -> None:
    start_s = time.monotonic()
    program = await Program.start(
        *(*CPSL, "coordinator", "--broker", url, "--wait", *JOB),
        *("--output", str(folder / "runs")),
        cwd=folder,
    )
    try:
        async with asyncio.timeout(JOB_S):
            await program.until("0 of 2 devices are ready")
            async with agents(url, 2, folder=folder):
                if await program.end() != 0:
                    raise RuntimeError(program.lines[-1] if program.lines else "it said nothing")
    except TimeoutError as error:
        raise RuntimeError(f"not done in {JOB_S:g} s; {' | '.join(program.lines[-2:])}") from error
    finally:
        await program.kill()
    outcome.job_s = time.monotonic() - start_s
    outcome.weights = weights_sha256(run_directory(folder / "runs"))


@asynccontextmanager
async def _bus(url: str) -> AsyncIterator[MqttBus]:
    async with await MqttBus.connect(url, client_id=secrets.token_hex(8), wait=True) as bus:
        yield bus


async def _first(bus: MqttBus, topic: str) -> bytes:
    await bus.subscribe(topic)
    payload = await _next(bus)
    await bus.unsubscribe(topic)
    return payload


async def _next(bus: MqttBus) -> bytes:
    async for event in bus.events():
        if isinstance(event, Delivery):
            return bytes(event.payload)
    raise RuntimeError("the bus ended")


async def main() -> None:
    """Try them one after another; ends with 1 if one that is here failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BROKERS)}")
    names = parser.parse_args().names or list(BROKERS)
    if unknown := set(names) - set(BROKERS):
        raise SystemExit(f"no broker is named {', '.join(unknown)}; they are {', '.join(BROKERS)}")
    columns = " ".join(f"{name:8}" for name in ("retained", "for a +", "will"))
    print(f"{'broker':22} {'MQTT':6} {columns} {'chunk ms':>8} {'job s':>6} weights")
    outcomes = []
    for name in names:
        outcomes.append(await try_broker(name))
        print(outcomes[-1].row(), flush=True)
    weights = {outcome.weights for outcome in outcomes if outcome.weights}
    bad = [one for one in outcomes if one.trouble.startswith("FAILED")]
    print(
        "the same weights everywhere" if len(weights) == 1 else f"{len(weights)} kinds of weights"
    )
    raise SystemExit(bool(bad) or len(weights) != 1)


if __name__ == "__main__":
    run_to_end(main())
