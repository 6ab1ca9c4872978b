"""Who can reach a broker that asks for nothing, as far as that can be told from here."""

import ipaddress

import psutil

from runtime.bus.broker_url import BrokerUrl

_ADVICE = "cpsl fleet init makes a site with TLS and rights"


def exposure_of(url: BrokerUrl) -> str | None:
    """Say what is open about the way to this broker; None if nothing is, or nobody can tell."""
    if url.tls:
        return None
    lets_in = (
        "lets in whoever reaches it, and anybody can speak in anybody's name"
        if url.username is None
        else "takes passwords that travel unencrypted"
    )
    if not _is_loopback(url.host):
        return f"the broker at {url} {lets_in}: {_ADVICE}"
    if url.username is None and _listens_everywhere(url.port):
        return (
            f"the broker at {url} listens on all interfaces of this machine and {lets_in}: "
            f"bind it to 127.0.0.1, or {_ADVICE}"
        )
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listens_everywhere(port: int) -> bool:
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return False
    return any(
        each.status == psutil.CONN_LISTEN
        and each.laddr
        and each.laddr.port == port
        and ipaddress.ip_address(each.laddr.ip).is_unspecified
        for each in connections
    )
