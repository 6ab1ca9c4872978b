"""The page that talks to the broker itself: served, or written as a file.

Nobody subscribes for it: the browser does, at the broker's listener for WebSockets.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_coordinator.monitor.web.one_file import as_one_file
from runtime.bus.broker_url import parse_broker_url
from runtime.errors import SettingsError, StorageError
from runtime.wire.schemas.published import PUBLISHED, shipped_schema
from runtime.wire.topics import Topics

_HOST = re.compile(r"[A-Za-z0-9_.:-]+")


@dataclass(frozen=True)
class DirectSource:
    """What the page watches, and where."""

    topics: Topics
    broker: str = ""
    """URL of a listener for WebSockets; empty: on the host that the page came from."""
    may_connect_to: str = "'self'"
    """The same as the browser's content security policy has it."""

    @classmethod
    def of(cls, url: str | None, site: str) -> "DirectSource":
        """SettingsError for a URL that no browser can use, or that tells a password."""
        if url is None:
            return cls(Topics(site))
        parsed = parse_broker_url(url)
        if parsed.path is None:
            raise SettingsError(
                f"a browser reaches a broker by WebSockets only: --direct takes ws://HOST:PORT or "
                f"wss://HOST:PORT, not {parsed}"
            )
        if parsed.username is not None:
            raise SettingsError(
                f"--direct {parsed} goes without user and password: whoever watches is asked for "
                "them on the page"
            )
        if not _HOST.fullmatch(parsed.host):
            raise SettingsError(f"{parsed.host!r} in --direct is not the name of a host")
        scheme = "wss:" if parsed.tls else "ws:"
        # A policy knows no addresses of IPv6.
        allowed = scheme if ":" in parsed.host else f"{scheme}//{parsed.host}:{parsed.port}"
        return cls(Topics(site), str(parsed), allowed)

    def as_json(self) -> dict[str, Any]:
        """Give it as the page reads it, with the schemas of all that it hears."""
        schemas = {
            name: {"schema": json.loads(shipped_schema(name)), "max_bytes": message.max_bytes}
            for name, message in PUBLISHED.items()
        }
        site = self.topics.site
        return {"mode": "broker", "broker": self.broker, "site": site, "schemas": schemas}


def write_page(source: DirectSource, path: Path) -> Path:
    """Write the page as one file (`index.html`, in a folder), and say where it is."""
    file = path / "index.html" if path.is_dir() else path
    text = as_one_file(source.as_json(), may_connect_to=source.may_connect_to)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write the page to {file}: {error.strerror}") from error
    return file
