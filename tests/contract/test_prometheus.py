"""A run's metrics, as Prometheus itself takes and answers them."""

import asyncio
import json
import re
import shutil
import socket
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from edge_coordinator.monitor.client import follow_on
from runtime.bus.memory_bus import MemoryBroker
from tests.builders import run_job
from tests.noise import shards
from tests.root import ROOT
from tests.sites import TOPICS, make_round

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

prometheus_client = pytest.importorskip("prometheus_client")
from edge_coordinator.monitor.prometheus.endpoint import served_metrics  # noqa: E402
from edge_coordinator.monitor.prometheus.scraped import ScrapedSite  # noqa: E402

DASHBOARD = ROOT / "deploy" / "grafana-dashboard.json"
NEVER_HERE = {"cpsl_device_temperature_celsius", "cpsl_device_battery_ratio"}
"""What the machine of a test may lack."""


@asynccontextmanager
async def _followed_run(num_rounds: int) -> AsyncIterator[ScrapedSite]:
    """Train while a site is watched; its metrics are those of the finished run."""
    broker, site = MemoryBroker(), ScrapedSite(TOPICS)
    async with broker.connect("metrics") as bus:
        following = asyncio.create_task(follow_on(bus, site))
        given = {"training.rounds": num_rounds, "plan.clusters": 1, "plan.mode": "auto"}
        await run_job(shards([40, 40], (1, 28, 28)), given, broker=broker)
        yield site
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def _text(site: ScrapedSite) -> str:
    registry = prometheus_client.CollectorRegistry()
    registry.register(cast("Collector", site))
    return str(prometheus_client.generate_latest(registry), "utf-8")


async def test_figures_of_any_task_are_scraped_by_their_names() -> None:
    broker, site = MemoryBroker(), ScrapedSite(TOPICS)
    report = make_round(
        3, test_accuracy=None, metric="mae", test_metric=0.5, test_figures={"r2": 0.25}
    )
    async with broker.connect("metrics") as bus, broker.connect("coordinator") as coordinator:
        await coordinator.publish(TOPICS.round, report.encode(), retain=True)
        following = asyncio.create_task(follow_on(bus, site))
        while "cpsl_run_round{" not in _text(site):
            await coordinator.unsubscribe("nothing")  # Let others run.
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    text = _text(site)
    assert 'cpsl_test_metric{metric="mae",site="default"} 0.5' in text
    assert 'cpsl_test_metric{metric="r2",site="default"} 0.25' in text
    assert "cpsl_test_accuracy_ratio{" not in text


def _exprs() -> list[str]:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    return [expr.replace("$site", "default") for expr in found]


async def _answer(url: str, query: str) -> list[Any]:
    def ask() -> list[Any]:
        with urlopen(f"{url}/api/v1/query?query={quote(query)}", timeout=10) as response:  # noqa: S310
            answer = json.load(response)
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    return await asyncio.to_thread(ask)


@asynccontextmanager
async def _prometheus(folder: Path, target: str) -> AsyncIterator[str]:
    """Start Prometheus, which scrapes one target ten times a second."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "prometheus.yml").write_text(
        "scrape_configs:\n- job_name: cpsl\n  scrape_interval: 100ms\n  scrape_timeout: 100ms\n"
        f"  static_configs:\n  - targets: ['{target}']\n"
    )
    process = await asyncio.create_subprocess_exec(
        "prometheus", f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
        stdout=DEVNULL, stderr=PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        while b"Server is ready" not in (line := await process.stderr.readline()):
            assert line, "Prometheus did not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.communicate()


async def _until_scraped(url: str) -> None:
    async with asyncio.timeout(30):
        while not await _answer(url, "cpsl_device_uplink_bytes_per_second"):
            pass


@pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="no Prometheus here (Debian's package `prometheus`)"
)
async def test_prometheus_scrapes_a_run_and_answers_what_the_dashboard_asks(
    tmp_path: Path,
) -> None:
    async with _followed_run(2) as site:
        with served_metrics(site, host="127.0.0.1", port=0, kept_s=0) as url:
            target = url.removeprefix("http://").removesuffix("/metrics")
            async with _prometheus(tmp_path, target) as server:
                await _until_scraped(server)
                [[online], [rounds], links] = [
                    await _answer(server, 'cpsl_devices{state="online"}'),
                    await _answer(server, "cpsl_round_duration_seconds_count"),
                    await _answer(server, "sort(cpsl_device_uplink_bytes_per_second)"),
                ]
                assert (online["value"][1], rounds["value"][1]) == ("2", "2")
                assert {link["metric"]["device"] for link in links} == {"d0", "d1"}
                for expr in _exprs():
                    found = await _answer(server, expr)
                    silent = "lost_total" in expr or any(name in expr for name in NEVER_HERE)
                    assert found or silent or "rate(" in expr, expr
        lint = await asyncio.create_subprocess_exec(
            "promtool", "check", "metrics", stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        _, complaints = await lint.communicate(_text(site).encode())
        assert complaints == b""


async def test_every_query_of_the_dashboard_names_metrics_that_there_are() -> None:
    asked = {name for expr in _exprs() for name in re.findall(r"cpsl_\w+", expr)}
    async with _followed_run(1) as site:
        given = set(re.findall(r"^# TYPE (\w+)", _text(site), re.M))
    given |= {f"{name}_{part}" for name in given for part in ("sum", "count")}
    assert asked - given == set()


def test_a_round_counts_once_and_one_that_was_over_before_does_not() -> None:
    site = ScrapedSite(TOPICS)
    for number, retained in ((4, True), (4, True), (5, False), (5, False), (6, False)):
        payload = make_round(number, lost={"a": "late"}).encode()
        site.receive(TOPICS.round, payload, retained=retained, now_s=0.0)
    text = _text(site)
    assert 'cpsl_round_duration_seconds_count{site="default"} 2.0' in text
    assert 'cpsl_device_lost_total{device="a",site="default"} 2.0' in text
    assert 'cpsl_run_round{site="default"} 6.0' in text
