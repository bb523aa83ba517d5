"""Where the gateway listens: loopback by default, elsewhere only with a certificate."""

import ipaddress
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_edge.errors import EdgeError, EdgeRequestError
from r1plus_edge.pods.places import LOOPBACK, find_free_port, is_free

DEFAULT_PORT: Final = 8400
LOOPBACK_NAMES: Final = ("127.0.0.1", "::1", "localhost")
"""What a gateway on loopback answers to."""
_LEAST_OPEN_PORT: Final = 1024
_BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True)
class Listening:
    """An address, and how it is protected."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that it answers to; empty: any, since a browser knows the certificate's names."""
        return tuple(dict.fromkeys((*LOOPBACK_NAMES, self.host))) if self.is_loopback else ()

    @property
    def local_url(self) -> str:
        """The address for programs on this machine."""
        address = ipaddress.ip_address(self.host)
        host = "localhost" if self.certificate else LOOPBACK if address.is_unspecified else self.host
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.certificate else 'http'}://{shown}:{self.port}"


def read_listening(text: str, certificate: Path | None, key: Path | None) -> Listening:
    """Return where to listen; `text` is ADDRESS:PORT, :PORT or empty.

    Raises:
        EdgeRequestError: it is no such address, or elsewhere than loopback without a certificate.
        EdgeError: the port is taken, or the address is none of this machine's.
    """
    if (certificate is None) != (key is None):
        raise EdgeRequestError("--tls-cert and --tls-key: give both, the certificate and its key, as PEM files")
    if certificate is not None and key is not None:
        _check_certificate(certificate, key)
    host, port = _parse(text) if text else (LOOPBACK, DEFAULT_PORT)
    listening = Listening(host, port, certificate, key)
    if not listening.is_loopback and certificate is None:
        raise EdgeRequestError(
            f"--listen {text}: beyond this machine API keys would travel in the clear; give --tls-cert and --tls-key,"
            f" or listen on {LOOPBACK}"
        )
    try:
        is_port_free = port == 0 or is_free(host, port)
    except OSError as error:
        raise EdgeError(f"--listen {text}: {error.strerror}; name an address of this machine") from error
    if is_port_free and port:
        return listening
    if text and port:
        raise EdgeError(f"--listen {text}: port {port} is taken; end what listens there, or name another port (0: any)")
    return Listening(host, find_free_port(), certificate, key)


def adopt_listening(text: str, certificate: Path | None, key: Path | None, listener: socket.socket) -> Listening:
    """Return where a socket listens already, which another release has opened by the same options."""
    host, _ = _parse(text) if text else (LOOPBACK, DEFAULT_PORT)
    return Listening(host, int(listener.getsockname()[1]), certificate, key)


def open_listener(listening: Listening) -> socket.socket:
    """Return a socket that listens: callers wait there while no gateway takes them, as between two of them.

    Raises:
        EdgeError: the port was taken meanwhile.
    """
    family = socket.AF_INET6 if ":" in listening.host else socket.AF_INET
    try:
        return socket.create_server((listening.host, listening.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        problem = os.strerror(error.errno) if error.errno else error  # Python adds the address to the kernel's words.
        raise EdgeError(
            f"--listen {listening.host}:{listening.port}: {problem}; end what listens there, or name another"
            " port (0: any)"
        ) from error


def _parse(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = {"": LOOPBACK, "localhost": LOOPBACK}.get(host, host.removeprefix("[").removesuffix("]"))
    try:
        host = str(ipaddress.ip_address(host))
        number = int(port) if port.isascii() and port.isdigit() else -1
    except ValueError:
        number = -1
    if not (number == 0 or _LEAST_OPEN_PORT <= number <= 65535):
        raise EdgeRequestError(
            f"--listen {text}: is not ADDRESS:PORT with an IP address and a port from {_LEAST_OPEN_PORT} to 65535;"
            f" for example {LOOPBACK}:{DEFAULT_PORT}"
        )
    return host, number


def _check_certificate(certificate: Path, key: Path) -> None:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except OSError as error:  # TLS errors are some
        raise EdgeRequestError(
            f"--tls-cert {certificate}, --tls-key {key}: {error}; give a certificate and its key as PEM files"
        ) from error
