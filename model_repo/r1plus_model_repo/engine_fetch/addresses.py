"""The servers from which an engine may be fetched: any https server, private or public, except this machine.

A URL is an instruction to a pod inside the cluster. The host name is checked when the R1PlusEngine is written
(`catalog.types`). The addresses behind it are checked here, for each connection and after each redirect, because a
name can resolve to a cloud's metadata service. With a proxy, the proxy resolves names and decides where they may
lead; only numeric hosts are checked here.
"""

import ipaddress
import socket
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

from r1plus_contract.engine.engine_fetch import FillRefusal
from r1plus_model_repo.engine_fetch.errors import FillError

_METADATA = frozenset(
    map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)
"""Metadata and agent services of clouds that are not link-local: Alibaba, Azure, Oracle, AWS and Google over IPv6."""
Resolve = Callable[[str, int], list[str]]


def resolve_host(host: str, port: int) -> list[str]:
    """Return the addresses of a host name from the system resolver. Raise OSError if it has none."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


def parse_numeric_host(host: str, port: int) -> list[str]:
    """Return the address of a host written as a number, in any notation; empty for a name. Sends no DNS query."""
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return []
    return [str(entry[4][0]) for entry in entries]


def parse_url(url: str) -> SplitResult:
    """Split a URL. Raise FillError for anything but https with a plain host."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refusal(url, f"it is not a valid URL: {error}") from error
    if not url.isprintable() or " " in url:
        raise _refusal(url, "it has spaces or unprintable characters")
    if parts.scheme != "https":
        raise _refusal(url, "only https is allowed")
    if parts.username is not None or parts.password is not None:
        raise _refusal(url, "it contains a user or a password")
    if not parts.hostname or port == 0:
        raise _refusal(url, "it has no host")
    return parts


def resolve_allowed(parts: SplitResult, resolve: Resolve = resolve_host) -> list[str]:
    """Return the addresses to connect to.

    Raise FillError if any one is forbidden: the connection may use any of them.
    """
    url, host = parts.geturl(), parts.hostname or ""
    try:
        addresses = resolve(host, parts.port or 443)
    except (OSError, UnicodeError) as error:
        text = (
            f"{redact_url(url)}: {host} does not resolve: {error}; correct the name, or make the"
            " cluster's DNS resolve it"
        )
        raise FillError(FillRefusal.FETCH_FAILED, text) from error
    for address in addresses:
        if reason := _explain_refusal(address):
            raise _refusal(url, f"{host} resolves to {address}, {reason}")
    return addresses


def _explain_refusal(address: str) -> str:
    """Return why fetching from this address is forbidden, or an empty string."""
    target = ipaddress.ip_address(address.split("%")[0])
    ipv4 = getattr(target, "ipv4_mapped", None)
    target = ipv4 or target
    if target in _METADATA:
        return "a cloud's metadata service"
    if target.is_loopback or target.is_unspecified:
        return "this machine"
    if target.is_link_local:
        return "a link-local address, where metadata services are"
    return "a multicast or reserved address" if target.is_multicast or target.is_reserved else ""


def redact_url(url: str) -> str:
    """Return the URL without its query, in which signed URLs carry a secret."""
    return url.split("?")[0].split("#")[0][:500]


def _refusal(url: str, reason: str) -> FillError:
    return FillError(FillRefusal.FETCH_REFUSED, f"{redact_url(url)}: {reason}; use another server in the R1PlusEngine")
