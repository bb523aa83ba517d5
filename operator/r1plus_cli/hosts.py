"""Hosts of URLs that a user names."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Return whether what is sent to this name or address stays on this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
