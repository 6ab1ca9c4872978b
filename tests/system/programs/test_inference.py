"""Both halves over a bus: a device sends smashed data, and gets what the unsplit module gives."""

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import numpy as np
import pytest

from device_agent.inference.client import NotServedError, RefusedError
from edge_coordinator.local.broker import local_broker
from edge_coordinator.run.model.halves import TorchHalf
from runtime.bus.memory_bus import MemoryBroker
from runtime.errors import TakenError, root_cause
from tests.root import ROOT
from tests.system.programs.inference_peers import OTHER_PAIR, client_of, serve, served
from tests.unit.edge_coordinator.run.model.trained import allowed_by_rounding, write_run


async def _predict(broker: MemoryBroker, device: str, *, num_batches: int) -> None:
    rng = np.random.default_rng(len(device))
    async with client_of(broker, device) as client:
        for size in range(1, num_batches + 1):
            x = rng.normal(size=(size, 3)).astype(np.float32)
            np.testing.assert_array_equal(await client.predict(x), 2 * x[:, :2])


async def test_many_devices_get_their_own_outputs_though_all_arrives_twice_and_late() -> None:
    broker = MemoryBroker(duplicate=True, shuffle=np.random.default_rng(0))
    async with served(broker), asyncio.TaskGroup() as tasks:
        for number in range(7):
            tasks.create_task(_predict(broker, f"pi-{number}", num_batches=5))


async def test_a_batch_is_answered_by_the_server_half_that_takes_the_place_of_another() -> None:
    broker, x = MemoryBroker(), np.ones((1, 3), np.float32)
    async with served(broker):
        client_is_there = client_of(broker)
        client = await client_is_there.__aenter__()
    asked = asyncio.create_task(client.predict(x))  # Nobody is there to answer.
    async with served(broker):
        assert (await asked).tolist() == [[2, 2]]
    await client_is_there.__aexit__(None, None, None)


async def test_what_cannot_be_answered_is_a_sentence() -> None:
    broker = MemoryBroker()
    with pytest.raises(NotServedError, match="nobody serves a server half on site 'default'"):
        async with client_of(broker, timeout_s=0.05):
            pass
    async with served(broker):
        with pytest.raises(RefusedError, match="belongs to another, net cut after fc1: export bo"):
            async with client_of(broker, pair=OTHER_PAIR):
                pass
        async with client_of(broker) as client:
            with pytest.raises(RefusedError, match="it cannot be computed: too large"):
                await client.predict(np.full((1, 3), 99, np.float32))
        async with broker.connect("another") as bus:
            with pytest.raises(BaseException) as caught:  # noqa: PT011
                await serve(bus)
            assert isinstance(root_cause(caught.value), TakenError)


WITHOUT_TORCH = (
    "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnx', 'onnxscript'))); "
    "from device_agent.__main__ import main; sys.exit(main())"
)


async def test_a_device_without_torch_predicts_over_a_broker(tmp_path: Path) -> None:
    network = write_run(tmp_path / "run")
    x = np.random.default_rng(0).normal(size=(10, 1, 28, 28)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    async with local_broker("auto", None) as broker:
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edge_coordinator", "infer", tmp_path / "run", "--cut", "fc1",
            "--export", tmp_path / "halves", "--serve", "--broker", broker.url,
            cwd=ROOT, stdout=PIPE, stderr=STDOUT,
        )  # fmt: skip
        assert server.stdout is not None
        said = await server.stdout.readline()
        assert b"serving the server half of mlp, cut after fc1" in said, said
        device = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WITHOUT_TORCH, "infer", tmp_path / "halves" / "device.onnx",
            "--broker", broker.url, "--id", "pi-1", "--data", f"inputs:{tmp_path / 'x.npy'}",
            "--batch-size", "4", "--output", tmp_path / "y.npy",
            cwd=ROOT, stdout=PIPE, stderr=STDOUT,
        )  # fmt: skip
        output, _ = await device.communicate()
        server.terminate()
        ended, _ = await server.communicate()
    assert device.returncode == 0, output.decode()
    assert b"computed 3 batches of 10 samples" in ended, ended
    allowed = allowed_by_rounding(network, x)
    found = np.load(tmp_path / "y.npy")
    np.testing.assert_allclose(found, TorchHalf(network).run(x), atol=allowed, rtol=0)
