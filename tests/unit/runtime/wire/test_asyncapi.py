"""The AsyncAPI document: valid by AsyncAPI's own schema, and complete."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from edge_coordinator.__main__ import main
from runtime.wire.schemas.asyncapi import asyncapi_document
from runtime.wire.schemas.published import PUBLISHED
from tests.root import ROOT
from tests.sites import make_plan, make_profile, make_round
from tests.turn import ASSIGNMENT, JOIN, READY

ITS_OWN = ROOT / "build/npm/node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json"


def _references(tree: object) -> Iterator[str]:
    if isinstance(tree, dict):
        if isinstance(tree.get("$ref"), str):
            yield tree["$ref"]
        for part in tree.values():
            yield from _references(part)
    elif isinstance(tree, list):
        for part in tree:
            yield from _references(part)


def _at(document: dict[str, Any], reference: str) -> object:
    found: Any = document
    for level in reference.removeprefix("#/").split("/"):
        found = found[level]
    return found


@pytest.mark.skipif(
    not ITS_OWN.exists(),
    reason="no schema of AsyncAPI here (npm install --prefix build/npm @asyncapi/specs@6.11.1)",
)
def test_the_document_is_valid_by_asyncapis_own_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--asyncapi"]) == 0
    jsonschema.Draft7Validator(json.loads(ITS_OWN.read_text(encoding="utf-8"))).validate(
        json.loads(capsys.readouterr().out)
    )


def test_all_references_lead_somewhere_and_all_that_is_published_is_there() -> None:
    document = asyncapi_document()
    for reference in _references(document):
        assert _at(document, reference), reference
    assert {model.__name__ for model in PUBLISHED.values()} <= document["components"][
        "messages"
    ].keys()
    addresses = [channel["address"] for channel in document["channels"].values()]
    assert len(set(addresses)) == len(addresses)
    for channel in document["channels"].values():
        assert re.findall(r"{(\w+)}", channel["address"]) == sorted(
            channel["parameters"], key=["site", "device", "cluster"].index
        )


def test_messages_fit_their_schemas_in_the_document() -> None:
    document = asyncapi_document()
    for message in (
        make_profile("d0", 1.0), make_plan("ab"), make_round(3), ASSIGNMENT, JOIN, READY,
    ):  # fmt: skip
        schema = {"$ref": f"#/components/schemas/{type(message).__name__}"}
        validator = jsonschema.Draft7Validator(schema | {"components": document["components"]})
        validator.validate(json.loads(message.encode()))
