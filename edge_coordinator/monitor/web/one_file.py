"""The page as one HTML file, for web servers that name no types, and for none at all.

Browsers run a module only where the server says that it is JavaScript; Mosquitto's `http_dir` says
nothing, and from a disk no module may import another. So the modules are put into one script, each
in a function of its own that returns what it exports.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html import escape
from pathlib import PurePosixPath
from typing import Any

from edge_coordinator.monitor.web.static_files import static_files

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:const|class|function) (\w+))", re.MULTILINE)
_LINK = re.compile(r'<link rel="stylesheet" href="static/([^"]+)">\n')
_SCRIPT = re.compile(r'<script src="static/([^"]+)"[^>]*></script>\n')
_LICENCE = re.compile(r'href="static/(vendor/[^"]+\.txt)"')
_LIBRARY = "vendor/mqtt.min.js"
"""What a served page loads when it needs it."""


def as_one_file(source: Mapping[str, Any], *, may_connect_to: str) -> str:
    """Write the page with everything in it; its policy forbids all but the one connection."""
    files = {name: content.decode() for name, content in static_files().items()}
    page = files["index.html"]
    styles = "".join(files[name] for name in _LINK.findall(page))
    *libraries, main = _SCRIPT.findall(page)
    classic = [files[name] for name in (*libraries, _LIBRARY)]
    module = bundled(main, files)
    icon = base64.b64encode(files["icon.svg"].encode()).decode()
    licences = "\n\n".join(files[name] for name in _LICENCE.findall(page))
    head = "".join(
        [
            _policy([*classic, module], styles, may_connect_to),
            f'<link rel="icon" href="data:image/svg+xml;base64,{icon}">\n',
            f"<style>{styles}</style>\n",
            f'<script type="application/json" id="source">{_data(source)}</script>\n',
            *(f"<script>{text}</script>\n" for text in classic),
            f'<script type="module">{module}</script>\n',
        ]
    )
    body = _SCRIPT.sub("", _LINK.sub("", page)).replace(
        '<link rel="icon" href="static/icon.svg">\n', ""
    )
    body = _LICENCE.sub('href="#licences"', body).replace(
        "</footer>",
        f'<details id="licences"><summary>Licences</summary><pre>{escape(licences)}</pre>'
        "</details></footer>",
    )
    return body.replace("</head>", f"{head}</head>")


def bundled(main: str, files: Mapping[str, str]) -> str:
    """Put a module and all that it imports into one script."""
    order: dict[str, None] = {}
    _visit(main, files, order)
    return "".join(_as_function(name, files[name]) for name in order)


def _visit(name: str, files: Mapping[str, str], order: dict[str, None]) -> None:
    """Add a module after those that it imports."""
    for _, imported in _IMPORT.findall(files[name]):
        if imported not in order:
            _visit(imported, files, order)
    order[name] = None


def _as_function(name: str, text: str) -> str:
    names = ", ".join(_EXPORT.findall(text))
    body = _EXPORT.sub("", _IMPORT.sub(_taken_over, text))
    return f"const {_variable(name)} = (() => {{\n{body}return {{ {names} }};\n}})();\n"


def _taken_over(found: re.Match[str]) -> str:
    names = found[1].replace(" as ", ": ")
    return f"const {{{names}}} = {_variable(found[2])};\n"


def _variable(name: str) -> str:
    return f"{PurePosixPath(name).stem}_module"


def _policy(scripts: list[str], style: str, may_connect_to: str) -> str:
    allowed = " ".join(map(_hashed, scripts))
    return (
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"script-src {allowed}; style-src {_hashed(style)}; img-src data:; "
        f"connect-src {may_connect_to}; base-uri 'none'; form-action 'none'\">\n"
    )


def _hashed(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _data(source: Mapping[str, Any]) -> str:
    """Write JSON in which no markup begins."""
    return json.dumps(source, separators=(",", ":")).replace("<", "\\u003c")
