"""Names that a server of ours answers to: a page of another origin must not reach it through the browser of its user.

A server on loopback has no network policy before it. A name of an attacker's may resolve to 127.0.0.1 (DNS rebinding):
then a browser takes the server for that name's, and lets the page read its answers.
"""

import ipaddress
from collections.abc import Set
from typing import Final
from urllib.parse import urlsplit

MISDIRECTED, FORBIDDEN = 421, 403
_LOCALHOST: Final = "localhost"


def find_loopback_names(address: str) -> Set[str]:
    """Return the names of loopback's `address`; none if it is another one's."""
    if address.lower() == _LOCALHOST:
        return {_LOCALHOST, "127.0.0.1", "::1"}
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return set()  # It is another name, or empty.
    return {_LOCALHOST, str(parsed)} if parsed.is_loopback else set()


def find_host_problem(host: str, origin: str | None, hosts: Set[str]) -> tuple[int, str] | None:
    """Return the status and the message for a request under another name than `hosts`, or of another server's page.

    `host`, `origin`: the headers; `hosts` empty: every name is right. None: the request is.
    """
    if not hosts:
        return None
    if read_host(f"//{host}") not in hosts:
        return MISDIRECTED, f"Host: is none of {', '.join(sorted(hosts))}; call by one of them"
    if origin is not None and origin.lower().partition("://")[2] != host.lower():
        return FORBIDDEN, "Origin: pages of other origins may not call; call from a program, or a server"
    return None


def read_host(address: str) -> str:
    """Return the host of an address in lower case, without its port and brackets; empty if there is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
