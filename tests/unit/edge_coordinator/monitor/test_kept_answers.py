"""Metrics that are put together once for all who scrape them soon after."""

from typing import Any

import pytest

pytest.importorskip("prometheus_client")
from edge_coordinator.monitor.prometheus.endpoint import KeptAnswers


def test_all_who_ask_the_same_soon_after_are_given_one_answer() -> None:
    made: list[str] = []

    def app(environ: Any, start: Any) -> list[bytes]:  # noqa: ANN401
        made.append(environ["HTTP_ACCEPT"])
        start("200 OK", [("Content-Type", environ["HTTP_ACCEPT"])])
        return [f"{environ['HTTP_ACCEPT']} {len(made)}".encode()]

    def asked(answers: KeptAnswers, accept: str) -> tuple[Any, ...]:
        told: list[Any] = []
        body = answers({"HTTP_ACCEPT": accept}, lambda *head: told.append(head))  # type: ignore[arg-type]
        return *told, b"".join(body)

    kept = KeptAnswers(app, kept_s=1e9)
    assert [asked(kept, "a") for _ in range(3)] == 3 * [
        (("200 OK", [("Content-Type", "a")]), b"a 1")
    ]
    assert asked(kept, "b")[-1] == b"b 2"
    for number in range(20):  # What is kept is bounded, and of those that came first.
        asked(kept, str(number))
    before = len(made)
    asked(kept, "a")
    asked(kept, "0")
    assert len(made) == before
    asked(kept, "19")
    assert len(made) == before + 1
    fresh = KeptAnswers(app, kept_s=0)
    assert asked(fresh, "a") != asked(fresh, "a")
