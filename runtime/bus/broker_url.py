"""Where the broker is and how to be let in, as one URL and up to three files."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from runtime.addresses import credentials_of, without_password
from runtime.errors import SettingsError

_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_ENCRYPTED = ("mqtts", "wss")
_WEBSOCKETS = ("ws", "wss")
_RIGHT = (
    "write mqtt://host, mqtt://user:password@host:1883, mqtts://host:8883, ws://host:80/mqtt or "
    "wss://host:443/mqtt"
)


@dataclass(frozen=True)
class TlsFiles:
    """PEM files for `mqtts` and `wss`: whom to trust, and (for a client certificate) who we are."""

    cafile: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None


@dataclass(frozen=True)
class BrokerUrl:
    """A broker's address; `str` of it shows no password."""

    host: str
    port: int
    tls: bool
    path: str | None = None
    """Where a web server takes MQTT over WebSockets; None for MQTT alone."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        kind = "mqtt" if self.path is None else "ws"
        return f"{kind}{'s' if self.tls else ''}://{host}:{self.port}{self.path or ''}"


def parse_broker_url(text: str) -> BrokerUrl:
    """Read `mqtt://[user:password@]host[:1883]`, `mqtts`, `ws` or `wss`; else SettingsError.

    `ws` and `wss` may have a path, which is `/mqtt` if left out.
    """
    if set("/?#") & set(credentials_of(text)):
        raise SettingsError(
            f"{_shown(text)} is not a broker's URL: in a user's name or password, write / as %2F, "
            "? as %3F and # as %23"
        )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise SettingsError(f"{_shown(text)} is not a broker's URL ({error}): {_RIGHT}") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise SettingsError(f"{_shown(text)} is not a broker's URL: {_RIGHT}")
    path = (parts.path or "/mqtt") if parts.scheme in _WEBSOCKETS else None
    is_more = path is None and parts.path.strip("/")
    if is_more or parts.query or parts.fragment or port == 0:
        raise SettingsError(f"{_shown(text)} is not a broker's URL: {_RIGHT}, with nothing after")
    return BrokerUrl(
        host=parts.hostname,
        port=port or _DEFAULT_PORTS[parts.scheme],
        tls=parts.scheme in _ENCRYPTED,
        path=path,
        username=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
    )


def make_tls_context(url: BrokerUrl, files: TlsFiles) -> ssl.SSLContext | None:
    """Return what TLS needs, None where there is none; SettingsError if a file cannot be used."""
    if not url.tls:
        if files != TlsFiles():
            raise SettingsError(f"certificates need an mqtts:// or wss:// URL, not {url}")
        return None
    if files.keyfile is not None and files.certfile is None:
        raise SettingsError(f"the key {files.keyfile} needs its certificate: set certfile too")
    try:
        context = ssl.create_default_context(cafile=files.cafile)
        if files.certfile is not None:
            context.load_cert_chain(files.certfile, files.keyfile)
    except OSError as error:  # ssl.SSLError is one
        named = ", ".join(
            str(file) for file in (files.cafile, files.certfile, files.keyfile) if file is not None
        )
        raise SettingsError(f"cannot use {named}: {error}") from error
    return context


def _shown(text: str) -> str:
    return repr(without_password(text, instead=":***"))
