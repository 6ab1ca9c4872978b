"""Where the broker is and how to be let in, as one URL and up to three files."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from runtime.errors import SettingsError
from runtime.url_credentials import credentials_of, without_password

_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}
_RIGHT = "write mqtt://host, mqtt://user:password@host:1883 or mqtts://host:8883"


@dataclass(frozen=True)
class TlsFiles:
    """PEM files for `mqtts`: whom to trust, and (for a client certificate) who we are."""

    cafile: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None


@dataclass(frozen=True)
class BrokerUrl:
    """A broker's address; `str` of it shows no password."""

    host: str
    port: int
    tls: bool
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def parse_broker_url(text: str) -> BrokerUrl:
    """Read `mqtt://[user:password@]host[:1883]` or `mqtts://…[:8883]`; else SettingsError."""
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
    if parts.path.strip("/") or parts.query or parts.fragment or port == 0:
        raise SettingsError(f"{_shown(text)} is not a broker's URL: {_RIGHT}, with nothing after")
    return BrokerUrl(
        host=parts.hostname,
        port=port or _DEFAULT_PORTS[parts.scheme],
        tls=parts.scheme == "mqtts",
        username=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
    )


def make_tls_context(url: BrokerUrl, files: TlsFiles) -> ssl.SSLContext | None:
    """Return what `mqtts` needs, None for `mqtt`; SettingsError if a file cannot be used."""
    if not url.tls:
        if files != TlsFiles():
            raise SettingsError(f"certificates need an mqtts:// URL, not {url}")
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
