"""Draw the packages, their rooms and their layers: `python -m docs.pictures.draw_architecture`.

Rooms and layers are those of the import contracts in `pyproject.toml`, which `lint-imports` holds
the code to; what each is for is the first sentence of its own docstring. Writes
docs/pictures/architecture.svg; a test compares it with the code.
"""

import argparse
import ast
import re
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[2]
PICTURE = Path(__file__).parent / "architecture.svg"
WIDTH, MARGIN, LINE, GAP = 1000, 10, 15, 8
NAME_WIDTH, CHARACTER_WIDTH = 124, 6.3
STYLE = """\
text { font: 11.5px Helvetica, Arial, sans-serif; fill: #222 }
.title { font-size: 15px; font-weight: bold } .name { font-weight: bold }
.panel { fill: #f6f8fa; stroke: #8b949e } .layer { fill: #fff; stroke: #d0d7de }
.broker { fill: #fff4e5; stroke: #d55e00 } .way { stroke: #d55e00; stroke-width: 2; fill: none }
.import { stroke: #0072b2; stroke-width: 2; fill: none }
"""
CAPTION = (
    "A room imports only what is in a",
    "frame below its own, or where its",
    "arrow goes. Neither program",
    "imports the other.",
)
ARROWS = "".join(
    f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5" markerHeight="5" '
    f'orient="auto-start-reverse"><path d="M0,0 L8,4 L0,8 z" fill="{colour}"/></marker>'
    for name, colour in (("way-end", "#d55e00"), ("import-end", "#0072b2"))
)


@dataclass(frozen=True)
class Room:
    """A package or a module, and its docstring's first sentence."""

    name: str
    purpose: str


def main() -> None:
    """Write the picture."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    PICTURE.write_text(picture(), encoding="utf-8")


def picture() -> str:
    """Put the packages where their imports point: programs, runtime, profiles."""
    half = (WIDTH - 3 * MARGIN) // 2
    body = list(_broker(half))
    top = 108
    agent, agent_end = _panel("device_agent", "cpsl-agent, on each device", MARGIN, top, half)
    edge, edge_end = _panel(
        "edge_coordinator", "cpsl, on the edge server", 2 * MARGIN + half, top, half
    )
    body += [*agent, *edge]
    runtime_top = edge_end + 34
    runtime, runtime_end = _panel(
        "runtime", "what both use", MARGIN, runtime_top, WIDTH - 2 * MARGIN
    )
    body += [*runtime, _import(MARGIN + half // 2, agent_end, runtime_top)]
    body += [
        _text(half // 2 + 2 * MARGIN + 6, agent_end + 30 + 18 * number, line)
        for number, line in enumerate(CAPTION)
    ]
    body.append(_import(2 * MARGIN + half + half // 2, edge_end, runtime_top))
    profiles_top = runtime_end + 34
    profiles, end = _panel("profiles", "facts with units", MARGIN, profiles_top, WIDTH - 2 * MARGIN)
    body += [*profiles, _import(WIDTH // 2, runtime_end, profiles_top)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {end + MARGIN}">'
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return "\n".join(
        [head, f"<style>{STYLE}</style>", f"<defs>{ARROWS}</defs>", ground, *body, "</svg>", ""]
    )


def layers(package: str) -> list[list[Room]]:
    """Give a package's rooms by layer, [layer][room], the first importing all others."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = (each for each in contracts if each.get("containers") == [package])
    names = [[name.strip() for name in re.split("[|:]", row)] for row in contract["layers"]]
    return [[Room(name, _purpose(ROOT / package, name)) for name in row] for row in names]


def _purpose(package: Path, name: str) -> str:
    path = package / name / "__init__.py"
    path = path if path.exists() else package / f"{name}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("`", "")


def _broker(half: int) -> Iterator[str]:
    """The bus between the programs, and what travels on it."""
    left, right = MARGIN + half // 2, 2 * MARGIN + half + half // 2
    yield f'<rect class="broker" x="{WIDTH // 2 - 150}" y="10" width="300" height="46" rx="6"/>'
    yield _text(WIDTH // 2 - 138, 29, "MQTT broker (Mosquitto, or amqtt)", "name")
    yield _text(WIDTH // 2 - 138, 46, "cpsl/SITE/device/ID/…, cpsl-tensors/SITE/…")
    for x, side in ((left, -1), (right, 1)):
        edge_x = WIDTH // 2 + side * 150
        yield (
            f'<path class="way" d="M{x},108 V33 H{edge_x}" '
            'marker-start="url(#way-end)" marker-end="url(#way-end)"/>'
        )
    yield _text(left + 10, 74, "up: smashed data and labels, device-side model, profile")
    yield _text(left + 10, 92, "down: job, graphs, device-side model, gradients")
    yield _text(right + 10, 74, "retained, for whoever watches: the plan")
    yield _text(right + 10, 92, "with its reasons, predicted and measured")


def _panel(package: str, title: str, x: int, y: int, width: int) -> tuple[list[str], int]:
    """Draw a package from its first layer down; its elements and where it ends."""
    parts = [_text(x + MARGIN, y + 20, f"{package}: {title}", "title")]
    bottom = y + 30
    columns = max(1, width // 480)
    for rooms in layers(package):
        layer, bottom = _layer(rooms, x + MARGIN, bottom, width - 2 * MARGIN, columns)
        parts += layer
        bottom += GAP
    panel = f'<rect class="panel" x="{x}" y="{y}" width="{width}" height="{bottom - y}" rx="6"/>'
    return [panel, *parts], bottom


def _layer(rooms: list[Room], x: int, y: int, width: int, columns: int) -> tuple[list[str], int]:
    """Draw rooms that do not import each other, beside each other where there is space."""
    columns = min(columns, len(rooms))
    column_width = width // columns
    parts, row_y = [], y + 4
    for start in range(0, len(rooms), columns):
        row_height = 0
        for column, room in enumerate(rooms[start : start + columns]):
            lines = _wrapped(room.purpose, column_width - NAME_WIDTH - MARGIN)
            left = x + column * column_width
            parts.append(_text(left + 8, row_y + 12, room.name, "name"))
            parts += [
                _text(left + NAME_WIDTH, row_y + 12 + LINE * number, line)
                for number, line in enumerate(lines)
            ]
            row_height = max(row_height, LINE * len(lines))
        row_y += row_height + 3
    end = row_y + 2
    box = f'<rect class="layer" x="{x}" y="{y}" width="{width}" height="{end - y}" rx="3"/>'
    return [box, *parts], end


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, int(width / CHARACTER_WIDTH))


def _import(x: int, start_y: int, end_y: int) -> str:
    return f'<path class="import" d="M{x},{start_y} V{end_y}" marker-end="url(#import-end)"/>'


def _text(x: int, y: int, text: str, kind: str = "") -> str:
    look = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}"{look}>{escape(text)}</text>'


if __name__ == "__main__":
    main()
