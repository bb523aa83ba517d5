"""An https download as a stream that hashes what it reads, reports progress, and fails when it stalls."""

import hashlib
import http.client
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from urllib.parse import SplitResult, urljoin, urlsplit

from r1plus_contract.engine.engine_fetch import FillPhase, FillProgress, FillRefusal
from r1plus_model_repo.engine_fetch.addresses import (
    Resolve,
    parse_numeric_host,
    parse_url,
    redact_url,
    resolve_allowed,
    resolve_host,
)
from r1plus_model_repo.engine_fetch.errors import FillError

MAX_REDIRECTS = 5
STALL_SECONDS = 60.0
STALL_BYTES = 64 * 1024
"""A download stalls if fewer bytes than this arrive in STALL_SECONDS: at that rate an engine takes weeks."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PERMANENT_STATUSES = frozenset({400, 401, 403, 404, 405, 410})
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
"""OpenSSL verify codes (x509_vfy.h) for a certificate that no trusted CA issued."""


class Download:
    """The body of one response; it can be read once."""

    def __init__(
        self,
        response: http.client.HTTPResponse,
        url: str,
        report: Callable[[FillProgress], None],
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._response, self._url, self._report, self._max_bytes, self._clock = response, url, report, max_bytes, clock
        length = response.headers.get("Content-Length", "")
        self._total = int(length) if length.isdigit() else 0
        self._done = 0
        self._hash = hashlib.sha256()
        self._since, self._in_window = clock(), 0

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes as soon as some arrive; empty at the end.

        Raise FillError if the server stops sending.
        """
        try:
            # read1, because read waits for all of `size`, however slowly the bytes arrive.
            piece = self._response.read1(size if size > 0 else 64 * 1024)
        except TimeoutError as error:
            raise self._stall_error() from error
        except (OSError, http.client.HTTPException) as error:
            raise _retryable_error(
                self._url, f"the connection ended after {self._done} bytes: {type(error).__name__}"
            ) from error
        if not piece and self._done < self._total:
            raise _retryable_error(self._url, f"the connection ended after {self._done} of {self._total} bytes")
        self._done += len(piece)
        if self._done > self._max_bytes:
            text = (
                f"{redact_url(self._url)}: the archive has more than {self._max_bytes} bytes; correct"
                " size or url in spec.artifact.archive"
            )
            raise FillError(FillRefusal.FETCH_REFUSED, text)
        self._hash.update(piece)
        self._watch(len(piece))
        self._report(FillProgress(FillPhase.FETCHING, self._done, self._total))
        return piece

    def read_to_end(self) -> str:
        """Read the rest of the body and return the sha256 of all of it."""
        while self.read():
            pass
        return self._hash.hexdigest()

    def _watch(self, count: int) -> None:
        self._in_window += count
        now = self._clock()
        if now - self._since < STALL_SECONDS:
            return
        if self._in_window < STALL_BYTES and self._done < (self._total or self._done + 1):
            raise self._stall_error()
        self._since, self._in_window = now, 0

    def _stall_error(self) -> FillError:
        text = (
            f"{redact_url(self._url)}: the download stalled after {self._done} of {self._total or 'unknown'} bytes:"
            f" fewer than {STALL_BYTES} bytes in {STALL_SECONDS:.0f} s; check the server and the network path to it"
        )
        return FillError(FillRefusal.FETCH_STALLED, text)


@contextmanager
def open_download(
    url: str,
    context: ssl.SSLContext,
    report: Callable[[FillProgress], None],
    max_bytes: int,
    resolve: Resolve = resolve_host,
    timeout: float = STALL_SECONDS,
    proxy: str = "",
) -> Iterator[Download]:
    """Connect to `url` and yield its body of at most `max_bytes`. Follow redirects and check each target.

    If `proxy` (http://HOST:PORT) is set, all requests go through it, redirects too.
    """
    current = url
    for _ in range(MAX_REDIRECTS + 1):
        parts = parse_url(current)
        addresses = resolve_allowed(parts, parse_numeric_host if proxy else resolve)
        if proxy:
            connection = _connect_through_proxy(parts, proxy, context, timeout)
        else:
            connection = _connect(parts, addresses, context, timeout)
        # Close the response too: if the server ends the connection, only the response still holds the socket.
        with closing(connection), closing(_send_request(connection, parts)) as response:
            if response.status not in _REDIRECTS:
                _check_status(response, current)
                yield Download(response, current, report, max_bytes)
                return
            current = urljoin(current, response.headers.get("Location", ""))
    raise FillError(
        FillRefusal.FETCH_REFUSED,
        f"{redact_url(url)}: more than {MAX_REDIRECTS} redirects; use the final URL in spec.artifact.archive.url",
    )


def create_tls_context(ca_pem: str) -> ssl.SSLContext:
    """Return a TLS context that trusts these CAs, or those of the image if `ca_pem` is empty."""
    try:
        return ssl.create_default_context(cadata=ca_pem or None)
    except ssl.SSLError as error:
        text = f"delivery.ca: not certificates in PEM: {error}; correct the chart's value"
        raise FillError(FillRefusal.FETCH_REFUSED, text) from error


class _PinnedConnection(http.client.HTTPSConnection):
    """A connection to an address that was already checked, whatever its name resolves to now. TLS verifies the name."""

    def __init__(self, host: str, port: int, address: str, context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(host, port, context=context, timeout=timeout)
        self._address, self._tls = address, context

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


def _connect(
    parts: SplitResult, addresses: list[str], context: ssl.SSLContext, timeout: float
) -> http.client.HTTPSConnection:
    failures, remedy = [], "is its network among the chart's delivery.cidrs?"
    for address in addresses:
        connection = _PinnedConnection(parts.hostname or "", parts.port or 443, address, context, timeout)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            failures.append(f"{address}: {error}")
            remedy = _suggest_certificate_fix(error) or remedy
        else:
            return connection
    raise _retryable_error(parts.geturl(), f"no connection ({'; '.join(failures)[:1000]}); {remedy}")


def _connect_through_proxy(
    parts: SplitResult, proxy: str, context: ssl.SSLContext, timeout: float
) -> http.client.HTTPSConnection:
    """Connect through a proxy. The proxy resolves the name and cannot read the traffic: TLS ends at the server."""
    host, port, proxy_url = parts.hostname or "", parts.port or 443, urlsplit(proxy)
    connection = http.client.HTTPSConnection(proxy_url.hostname or "", proxy_url.port, context=context, timeout=timeout)
    connection.set_tunnel(host, port, {"Host": f"{host}:{port}"})
    try:
        connection.connect()
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        connection.close()
        remedy = _suggest_certificate_fix(error) or (
            "let the proxy accept the cluster's addresses without a password: a tenant could read one"
            if "failed: 407" in str(error)
            else f"check that the proxy allows {host}:{port} and that delivery.proxy.cidrs of the chart has its address"
        )
        text = f"no connection through the proxy {proxy} ({str(error)[:1000]}); {remedy}"
        raise _retryable_error(parts.geturl(), text) from error
    return connection


def _suggest_certificate_fix(error: Exception) -> str:
    """Return what to do about a rejected server certificate; empty for any other error."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return ""
    if error.verify_code in _UNKNOWN_ISSUER:
        return (
            "add the certificate of the CA that issued it to the chart's delivery.ca (a TLS-inspecting proxy has its"
            " own CA)"
        )
    return "install a valid certificate for that name on the server"


def _send_request(connection: http.client.HTTPSConnection, parts: SplitResult) -> http.client.HTTPResponse:
    target = parts.path or "/"
    try:
        # No compression: it would change the sha256.
        connection.request("GET", f"{target}?{parts.query}" if parts.query else target, headers={"Accept": "*/*"})
        return connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise _retryable_error(parts.geturl(), f"no answer: {type(error).__name__}") from error


def _check_status(response: http.client.HTTPResponse, url: str) -> None:
    if response.status == http.HTTPStatus.OK:
        return
    reason = f"HTTP {response.status} {response.reason}"
    if response.status in _PERMANENT_STATUSES:
        raise FillError(FillRefusal.FETCH_REFUSED, f"{redact_url(url)}: {reason}; correct spec.artifact.archive.url")
    raise _retryable_error(url, reason)


def _retryable_error(url: str, reason: str) -> FillError:
    return FillError(FillRefusal.FETCH_FAILED, f"{redact_url(url)}: {reason}; the Job retries")
