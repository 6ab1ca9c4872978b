"""The command that prints what is published, as schemas."""

import argparse
import json
import sys

from runtime.wire.schema import PUBLISHED, dump_schema, generate_schema, write_schemas


def print_schemas(flags: argparse.Namespace) -> None:
    """Print or write one JSON Schema, or all."""
    if flags.write is not None:
        write_schemas(flags.write, PUBLISHED if flags.name is None else [flags.name])
    elif flags.name is not None:
        sys.stdout.write(dump_schema(flags.name))
    else:
        schemas = {name: generate_schema(name) for name in PUBLISHED}
        sys.stdout.write(json.dumps(schemas, indent=2) + "\n")
