"""An agent that lies: `python -m benchmarks.hostile.lying_device LIE`, and flags of cpsl-agent.

It is the agent that everybody has, but for what it changes of what it says: by its trainer where
that is a number, by its connection where it is anything else.
"""

import argparse
import asyncio
import json
import sys
import time

import numpy as np

from benchmarks.poisoning.poisoned_devices import ATTACKS, Attack, PoisonedTrainer, Tensors
from device_agent import host
from device_agent.__main__ import main
from runtime.bus.mqtt_bus import MqttBus

TRICKLE_S = 0.5
"""Between chunks."""


class LyingBus(MqttBus):
    """Changes what the agent publishes."""

    lie = ""
    one_at_a_time = asyncio.Lock()

    async def publish(
        self, topic: str, payload: bytes | bytearray | memoryview, *, retain: bool
    ) -> None:
        """Publish something else."""
        leaf = topic.rsplit("/", 1)[1]
        is_frame = leaf in {"smashed", "weights"}
        if self.lie == "trickle" and is_frame:
            async with self.one_at_a_time:  # Several chunks may be under way.
                await asyncio.sleep(TRICKLE_S)
        elif self.lie == "slow-then-silent" and is_frame:
            await asyncio.sleep(3600.0)
        elif self.lie == "broken-frames" and is_frame:
            payload = bytes(payload)[:-7]
        elif self.lie == "garbage" and leaf == "reply":
            payload = b'{"kind": "ready", "run": -1}'
            for _ in range(100):
                await super().publish(topic, payload, retain=False)
        elif leaf in {"reply", "profile"} and payload:
            payload = self._said(json.loads(bytes(payload)))
        await super().publish(topic, payload, retain=retain)

    def _said(self, message: dict[str, object]) -> bytes:
        kind = message.get("kind")
        if kind == "ready" and self.lie == "samples":
            message["num_samples"] = 2**62
        elif kind == "ready" and self.lie == "label-width":
            message["label_shape"] = [65535, 200]
        elif self.lie == "slow-then-silent" and isinstance(compute := message.get("compute"), dict):
            compute |= {"forward_flop_per_s": 1.0, "backward_flop_per_s": 1.0}
            compute["measured_at_unix_s"] = time.time()
        return json.dumps(message).encode()


def _not_a_number(tensors: Tensors, _: np.random.Generator) -> Tensors:
    smashed, labels = tensors
    bad = smashed.copy()
    bad.reshape(-1)[:1] = np.nan
    return bad, labels


NUMBERS = {**ATTACKS, "nan": Attack(of_smashed=_not_a_number)}


def run() -> int:
    """Read the lie, then be an agent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lie", help="of benchmarks.hostile.lies; all else goes to cpsl-agent")
    flags, words = parser.parse_known_args()
    if flags.lie in NUMBERS:
        PoisonedTrainer.attack = NUMBERS[flags.lie]
        vars(host)["Trainer"] = PoisonedTrainer
    else:
        LyingBus.lie = flags.lie
        vars(host)["MqttBus"] = LyingBus
    return main(words)


if __name__ == "__main__":
    sys.exit(run())
