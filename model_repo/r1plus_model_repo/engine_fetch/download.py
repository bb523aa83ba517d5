"""An https download as a stream that hashes what it gives, knows how far it is, and ends when nothing comes."""

import hashlib
import http.client
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from urllib.parse import SplitResult, urljoin, urlsplit

from r1plus_contract.engine_fetch import FillPhase, FillProgress, FillRefusal
from r1plus_model_repo.engine_fetch.addresses import Resolve, checked, numeric, parsed, resolved, shown
from r1plus_model_repo.engine_fetch.errors import FillError

MAX_REDIRECTS = 5
STALL_SECONDS = 60.0
STALL_BYTES = 64 * 1024
"""Fewer bytes than this in that time are a stalled download: at such a pace an engine would take weeks."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FOR_GOOD = frozenset({400, 401, 403, 404, 405, 410})
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's verify codes (x509_vfy.h) for a certificate that no trusted CA has issued."""


class Download:
    """The body of one response, readable once."""

    def __init__(
        self,
        response: http.client.HTTPResponse,
        url: str,
        tell: Callable[[FillProgress], None],
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._response, self._url, self._tell, self._most, self._clock = response, url, tell, most, clock
        length = response.headers.get("Content-Length", "")
        self._total = int(length) if length.isdigit() else 0
        self._done = 0
        self._hash = hashlib.sha256()
        self._since, self._in_window = clock(), 0

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, some of them at once; empty at the end. FillError where the server does not go on."""
        try:
            # read1 and not read: that one waits for all of `size`, however slowly they drip.
            piece = self._response.read1(size if size > 0 else 64 * 1024)
        except TimeoutError as error:
            raise self._stalled() from error
        except (OSError, http.client.HTTPException) as error:
            raise _failed(self._url, f"broke off after {self._done} bytes: {type(error).__name__}") from error
        if not piece and self._done < self._total:
            raise _failed(self._url, f"broke off after {self._done} of {self._total} bytes")
        self._done += len(piece)
        if self._done > self._most:
            text = (
                f"{shown(self._url)}: more than {self._most} bytes; correct spec.artifact.archive, its size or its url"
            )
            raise FillError(FillRefusal.FETCH_REFUSED, text)
        self._hash.update(piece)
        self._watch(len(piece))
        self._tell(FillProgress(FillPhase.FETCHING, self._done, self._total))
        return piece

    def rest(self) -> str:
        """Read what is left, and give the sha256 of all of it."""
        while self.read():
            pass
        return self._hash.hexdigest()

    def _watch(self, count: int) -> None:
        self._in_window += count
        now = self._clock()
        if now - self._since < STALL_SECONDS:
            return
        if self._in_window < STALL_BYTES and self._done < (self._total or self._done + 1):
            raise self._stalled()
        self._since, self._in_window = now, 0

    def _stalled(self) -> FillError:
        text = (
            f"{shown(self._url)}: {self._done} of {self._total or 'an unknown number of'} bytes came, then fewer than"
            f" {STALL_BYTES} in {STALL_SECONDS:.0f} s; look at the server and at what is between"
        )
        return FillError(FillRefusal.FETCH_STALLED, text)


@contextmanager
def opened(
    url: str,
    context: ssl.SSLContext,
    tell: Callable[[FillProgress], None],
    most: int,
    resolve: Resolve = resolved,
    timeout: float = STALL_SECONDS,
    proxy: str = "",
) -> Iterator[Download]:
    """Connect to `url`, following redirects, each of which must lead where one may fetch from; `most` bytes of body.

    All of it goes through the `proxy` (http://HOST:PORT) where there is one: redirects, too.
    """
    at = url
    for _ in range(MAX_REDIRECTS + 1):
        parts = parsed(at)
        addresses = checked(parts, numeric if proxy else resolve)
        if proxy:
            connection = _tunnelled(parts, proxy, context, timeout)
        else:
            connection = _connected(parts, addresses, context, timeout)
        # The response by itself, too: where the server ends the connection it alone still holds the socket.
        with closing(connection), closing(_asked(connection, parts)) as response:
            if response.status not in _REDIRECTS:
                _accepted(response, at)
                yield Download(response, at, tell, most)
                return
            at = urljoin(at, response.headers.get("Location", ""))
    raise FillError(
        FillRefusal.FETCH_REFUSED, f"{shown(url)}: more than {MAX_REDIRECTS} redirects; name the last address"
    )


def trust(ca_pem: str) -> ssl.SSLContext:
    """Whom servers are believed by: these CAs, or where there are none those of the image."""
    try:
        return ssl.create_default_context(cadata=ca_pem or None)
    except ssl.SSLError as error:
        text = f"delivery.ca: no certificates in PEM: {error}; correct the chart's value"
        raise FillError(FillRefusal.FETCH_REFUSED, text) from error


class _Pinned(http.client.HTTPSConnection):
    """Connects to an address that was looked at, whatever its name resolves to by now; the name is what TLS checks."""

    def __init__(self, host: str, port: int, address: str, context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(host, port, context=context, timeout=timeout)
        self._address, self._tls = address, context

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


def _connected(
    parts: SplitResult, addresses: list[str], context: ssl.SSLContext, timeout: float
) -> http.client.HTTPSConnection:
    failures, remedy = [], "is its network among the chart's delivery.cidrs?"
    for address in addresses:
        connection = _Pinned(parts.hostname or "", parts.port or 443, address, context, timeout)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            failures.append(f"{address}: {error}")
            remedy = _certificate_remedy(error) or remedy
        else:
            return connection
    raise _failed(parts.geturl(), f"no connection ({'; '.join(failures)[:1000]}); {remedy}")


def _tunnelled(parts: SplitResult, proxy: str, context: ssl.SSLContext, timeout: float) -> http.client.HTTPSConnection:
    """Connect through a proxy, which resolves the name and passes on what it cannot read: TLS ends at the server."""
    host, port, way = parts.hostname or "", parts.port or 443, urlsplit(proxy)
    connection = http.client.HTTPSConnection(way.hostname or "", way.port, context=context, timeout=timeout)
    connection.set_tunnel(host, port, {"Host": f"{host}:{port}"})
    try:
        connection.connect()
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        connection.close()
        remedy = _certificate_remedy(error) or (
            "let the proxy admit the cluster's addresses without a password: a tenant could read it"
            if "failed: 407" in str(error)
            else f"does the proxy allow {host}:{port}, and is its own network among the chart's delivery.proxy.cidrs?"
        )
        text = f"no connection through the proxy {proxy} ({str(error)[:1000]}); {remedy}"
        raise _failed(parts.geturl(), text) from error
    return connection


def _certificate_remedy(error: Exception) -> str:
    """What to do about a server's certificate that is refused; empty where another thing is wrong."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return ""
    if error.verify_code in _UNKNOWN_ISSUER:
        return (
            "add the certificate of the CA that issued it to the chart's delivery.ca (what opens TLS on the way has a"
            " CA of its own)"
        )
    return "let the server have a valid certificate of that name"


def _asked(connection: http.client.HTTPSConnection, parts: SplitResult) -> http.client.HTTPResponse:
    target = parts.path or "/"
    try:
        # Compressed on its way it would have another sha256.
        connection.request("GET", f"{target}?{parts.query}" if parts.query else target, headers={"Accept": "*/*"})
        return connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise _failed(parts.geturl(), f"no answer: {type(error).__name__}") from error


def _accepted(response: http.client.HTTPResponse, url: str) -> None:
    if response.status == http.HTTPStatus.OK:
        return
    why = f"HTTP {response.status} {response.reason}"
    if response.status in _FOR_GOOD:
        raise FillError(FillRefusal.FETCH_REFUSED, f"{shown(url)}: {why}; correct spec.artifact.archive.url")
    raise _failed(url, why)


def _failed(url: str, why: str) -> FillError:
    return FillError(FillRefusal.FETCH_FAILED, f"{shown(url)}: {why}; it is tried again")
