"""The command that prints what is published, as schemas."""

import argparse
import json
import sys

from edge_coordinator.cli.output import Output
from runtime.errors import SettingsError
from runtime.wire.schemas.asyncapi import dump_asyncapi
from runtime.wire.schemas.published import PUBLISHED, dump_schema, generate_schema, write_schemas


def print_schemas(flags: argparse.Namespace, console: Output) -> None:
    """Print or write one JSON Schema, or all; or the AsyncAPI document. It is JSON anyway."""
    if flags.asyncapi:
        if flags.name is not None or flags.write is not None:
            raise SettingsError("--asyncapi is one document; it goes without a name and --write")
        sys.stdout.write(dump_asyncapi())
    elif flags.write is not None:
        names = list(PUBLISHED) if flags.name is None else [flags.name]
        write_schemas(flags.write, names)
        console.event("written", {"files": [str(flags.write / f"{name}.json") for name in names]})
    elif flags.name is not None:
        sys.stdout.write(dump_schema(flags.name))
    else:
        schemas = {name: generate_schema(name) for name in PUBLISHED}
        sys.stdout.write(json.dumps(schemas, indent=2) + "\n")
