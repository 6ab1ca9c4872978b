"""The page of recorded runs as a person sees it, in a real browser."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_coordinator.monitor.web.app import records_app
from edge_coordinator.monitor.web.recorded import RunRecords
from edge_coordinator.monitor.web.serving import Address, served
from tests.outside.browser import Page, browser_page, find_browser
from tests.sites import measured_round, planned_round

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium here (Debian's package `chromium`)"
)


@asynccontextmanager
async def _page_of_runs(*paths: Path) -> AsyncIterator[Page]:
    app = records_app(RunRecords(paths), bound_to="127.0.0.1")
    async with served(app, Address(port=0).listen()) as url, browser_page() as page:
        await page.window(1200, 900)
        await page.open(url)
        yield page


def _record(path: Path, *, rounds: int, model: str) -> Path:
    path.mkdir()
    (path / "job.toml").write_text(f'[model]\nname = "{model}"\n', encoding="utf-8")
    lines = []
    for number in range(1, rounds + 1):
        tree = json.loads(measured_round(number, "ab").encode())
        tree |= {"clock": "wall", "plan": json.loads(planned_round(number, ["ab"]).encode())}
        lines.append(json.dumps(tree) + "\n")
    (path / "rounds.jsonl").write_text("".join(lines), encoding="utf-8")
    return path


async def test_a_recorded_run_opens_in_the_same_page_at_any_round(tmp_path: Path) -> None:
    run = _record(tmp_path / "first", rounds=4, model="lenet")
    async with _page_of_runs(run) as page:
        await page.until("document.querySelector('#map-what').innerText.includes('Round 4 of 4')")
        assert "first" in await page.text("#title")
        assert await page.evaluate("document.querySelector('#runs').hidden")
        await page.evaluate(
            "(turn => {turn.value = 2; turn.dispatchEvent(new Event('input'))})"
            "(document.querySelector('#map-round'))"
        )
        await page.until("document.querySelector('#map-what').innerText.includes('Round 2 of 4')")
        assert await page.evaluate(
            "document.querySelectorAll('#devices-table tbody tr').length == 2"
        )
        assert page.complaints == []


async def test_a_record_without_its_local_epochs_is_drawn_with_those_of_the_job(
    tmp_path: Path,
) -> None:
    run = _record(tmp_path / "first", rounds=1, model="lenet")
    (run / "job.toml").write_text("[training]\nlocal_epochs = 3\n", encoding="utf-8")
    line = json.loads((run / "rounds.jsonl").read_text(encoding="utf-8"))
    del line["plan"]["local_epochs"]
    line["clock"] = "virtual"
    (run / "rounds.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    async with _page_of_runs(run) as page:
        await page.until("document.querySelector('#map-what').innerText.includes('Round 1')")
        await page.evaluate("document.querySelector('#map-canvas').focus()")
        await page.press("ArrowDown")
        assert "forward 4.5 s" in (await page.text("#map-readout")).replace("\u00a0", " ")
        assert await page.text("#state") == "recorded; the seconds of first are simulated"


async def test_a_run_of_numbers_is_shown_by_its_own_metric_whose_least_is_best(
    tmp_path: Path,
) -> None:
    run = _record(tmp_path / "first", rounds=3, model="mlp")
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    for line, mae in zip(lines, (0.75, 0.123456, 0.5), strict=True):
        line |= {
            "test_accuracy": None,
            "metric": "mae",
            "test_metric": mae,
            "lower_is_better": True,
        }
    (run / "rounds.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    async with _page_of_runs(run) as page:
        await page.until("document.querySelector('#now').innerText.includes('0.1235 (round 2)')")
        shown = await page.text("body")
        assert "Best test mae" in shown
        assert "Test mae last: 0.5" in " ".join(shown.split())
        assert "ccuracy" not in shown
        assert page.complaints == []


async def test_two_recorded_runs_are_compared(tmp_path: Path) -> None:
    first = _record(tmp_path / "first", rounds=4, model="lenet")
    second = _record(tmp_path / "second", rounds=6, model="mlp")
    async with _page_of_runs(first, second) as page:
        await page.until("!document.querySelector('#runs').hidden")
        table = (await page.text("#runs")).replace("\u00a0", " ")
        for line in ("figure\tfirst\tsecond", "model.name\tlenet\tmlp", "rounds\t4\t6"):
            assert line in table, line
        assert "best test accuracy\t87.50 % (round 4)\t91.67 % (round 6)" in table
        caption = "document.querySelector('#charts figcaption').innerText"
        assert (await page.evaluate(caption)).startswith("Test accuracy last: first: test 87.5")
        await page.evaluate("document.querySelector('input[value=elapsed_s]').click()")
        label = "document.querySelector('#charts [role=img]').getAttribute('aria-label')"
        assert "over seconds" in await page.evaluate(label)
        assert page.complaints == []


async def test_the_best_round_of_equal_ones_is_the_one_whose_weights_are_kept(
    tmp_path: Path,
) -> None:
    run = _record(tmp_path / "first", rounds=3, model="lenet")
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text("utf-8").splitlines()]
    for line, loss in zip(lines, (0.3, 0.1, 0.2), strict=True):
        line |= {"test_accuracy": 0.5, "test_loss": loss}
    (run / "rounds.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines), "utf-8")
    async with _page_of_runs(run) as page:
        await page.until("document.body.innerText.includes('Best test accuracy')")
        assert "50.00 % (round 2)" in (await page.text("body")).replace("\u00a0", " ")
