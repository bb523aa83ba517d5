"""From where an engine may be fetched: an https server of one's own network or of the world, never the machine itself.

A URL is an instruction to a pod inside the cluster. So the names that it may use are checked when the R1PlusEngine is
written (`catalog.types`), and the addresses behind them here, at each connection and after each redirect: a name may
lead to a cloud's metadata service as well as a number may. Through a proxy it is the proxy that resolves names, and
decides where they may lead; numbers are looked at here.
"""

import ipaddress
import socket
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

from r1plus_contract.engine_fetch import FillRefusal
from r1plus_model_repo.engine_fetch.errors import FillError

_METADATA = frozenset(
    map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)
"""Metadata and agent services of clouds that are not link-local: Alibaba, Azure, Oracle, AWS and Google over IPv6."""
Resolve = Callable[[str, int], list[str]]


def resolved(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system knows them; OSError where it knows none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def numeric(host: str, port: int) -> list[str]:
    """The address that a host is written as, in whatever notation; of a name none. Asks no DNS."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return []
    return [str(entry[4][0]) for entry in found]


def parsed(url: str) -> SplitResult:
    """The URL in parts; FillError for anything but https with a plain host."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refused(url, f"it is no URL: {error}") from error
    if not url.isprintable() or " " in url:
        raise _refused(url, "it has spaces or unprintable characters")
    if parts.scheme != "https":
        raise _refused(url, "only https is fetched")
    if parts.username is not None or parts.password is not None:
        raise _refused(url, "it carries a user or a password")
    if not parts.hostname or port == 0:
        raise _refused(url, "it names no server")
    return parts


def checked(parts: SplitResult, resolve: Resolve = resolved) -> list[str]:
    """The addresses to connect to. One that is refused refuses them all: which one is taken is chance."""
    url, host = parts.geturl(), parts.hostname or ""
    try:
        addresses = resolve(host, parts.port or 443)
    except (OSError, UnicodeError) as error:
        text = f"{shown(url)}: no address for {host}: {error}; correct the name, or let the cluster's DNS resolve it"
        raise FillError(FillRefusal.FETCH_FAILED, text) from error
    for address in addresses:
        if why := _forbidden(address):
            raise _refused(url, f"{host} is {address}, {why}")
    return addresses


def _forbidden(address: str) -> str:
    """Why nothing is fetched from there; empty where it may be."""
    found = ipaddress.ip_address(address.split("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    found = mapped or found
    if found in _METADATA:
        return "a cloud's metadata service"
    if found.is_loopback or found.is_unspecified:
        return "this machine itself"
    if found.is_link_local:
        return "a link-local address, where metadata services are"
    return "no server's address" if found.is_multicast or found.is_reserved else ""


def shown(url: str) -> str:
    """A URL as it may be told: without its query, in which signed URLs carry a secret."""
    return url.split("?")[0].split("#")[0][:500]


def _refused(url: str, why: str) -> FillError:
    return FillError(FillRefusal.FETCH_REFUSED, f"{shown(url)}: {why}; name another server in the R1PlusEngine")
