"""A client of one registry: the OCI distribution specification 1.1, as far as a push needs it."""

import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import httpx

from r1plus_cli.bundle.credentials import Login
from r1plus_cli.bundle.oci import INDEX_TYPE, MANIFEST_TYPE, Descriptor
from r1plus_cli.errors import CliError

TIMEOUT_SECONDS = 60.0
"""Longest silence of a registry: a large blob is committed within this."""
TRIES = 5
_RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_PAUSE = 60.0
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_ACCEPT = f"{MANIFEST_TYPE}, {INDEX_TYPE}"

Content = Callable[[], Iterator[bytes]]
"""Opens the content of a blob from its beginning; called again for each try."""


class OciRegistry:
    """Connection to a registry; a context manager."""

    def __init__(
        self,
        host: str,
        login: Login | None,
        *,
        verify: Any = True,
        is_plain: bool = False,
        transport: httpx.BaseTransport | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connect when the first request is made.

        Args:
            host: host with port.
            login: user and password, or None to push without.
            verify: SSL context, or True for the machine's certificates.
            is_plain: whether the registry speaks HTTP.
            transport: of httpx, for tests.
            pause: waits for so many seconds between tries.
        """
        self._host, self._login, self._pause = host, login, pause
        self._base = httpx.URL(f"{'http' if is_plain else 'https'}://{host}")
        self._client = httpx.Client(verify=verify, timeout=TIMEOUT_SECONDS, transport=transport)
        self._authorization: dict[str, str] = {}
        """Repository -> value of the header Authorization."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def find_digest(self, repository: str, reference: str) -> str | None:
        """Return the digest of a tag or manifest, or None if the registry has none of that name."""
        response = self._send("HEAD", repository, f"manifests/{reference}", headers={"Accept": _ACCEPT})
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        self._check(response, repository, {200})
        return str(response.headers.get("Docker-Content-Digest", ""))

    def read_manifest(self, repository: str, reference: str) -> bytes | None:
        """Return a manifest or index, or None."""
        response = self._send("GET", repository, f"manifests/{reference}", headers={"Accept": _ACCEPT})
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        self._check(response, repository, {200})
        return response.content

    def has_blob(self, repository: str, digest: str) -> bool:
        """Return whether a repository has a blob."""
        response = self._send("HEAD", repository, f"blobs/{digest}")
        if response.status_code != httpx.codes.NOT_FOUND:
            self._check(response, repository, {200, 307})
        return response.status_code != httpx.codes.NOT_FOUND

    def push_blob(self, repository: str, blob: Descriptor, content: Content, source: str | None) -> None:
        """Upload a blob, or mount it from the repository `source` of the same registry."""
        parameters = {"mount": blob.digest, "from": source} if source else {}
        response = self._send("POST", repository, "blobs/uploads/", parameters=parameters)
        self._check(response, repository, {201, 202})
        if response.status_code == httpx.codes.CREATED:
            return
        location = self._base.join(response.headers.get("Location", "")).copy_merge_params({"digest": blob.digest})
        headers = {"Content-Length": str(blob.size), "Content-Type": "application/octet-stream"}
        self._check(self._send("PUT", repository, location, headers=headers, content=content), repository, {201})

    def push_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> bool:
        """Store a manifest under a digest or tag. Return whether the registry lists it as a referrer of its subject."""
        headers = {"Content-Type": media_type, "Content-Length": str(len(data))}
        response = self._send(
            "PUT", repository, f"manifests/{reference}", headers=headers, content=lambda: iter((data,))
        )
        self._check(response, repository, {201})
        return "OCI-Subject" in response.headers

    def _send(
        self,
        method: str,
        repository: str,
        where: str | httpx.URL,
        *,
        parameters: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        content: Content | None = None,
    ) -> httpx.Response:
        url = where if isinstance(where, httpx.URL) else self._base.join(f"/v2/{repository}/{where}")
        is_asked = False
        for attempt in range(1, TRIES + 1):
            own = self._own_headers(url, repository)
            request = self._client.build_request(
                method, url, params=parameters or None, headers={**(headers or {}), **own},
                content=content() if content else None,
            )  # fmt: skip
            try:
                response = self._client.send(request)
            except httpx.TransportError as error:
                self._wait(attempt, str(error) or type(error).__name__, None)
                continue
            if response.status_code == httpx.codes.UNAUTHORIZED and not is_asked and self._is_own(url):
                is_asked = True
                self._authorization[repository] = self._authorize(response, repository)
                continue
            if response.status_code not in _RETRIED_STATUSES:
                return response
            self._wait(attempt, f"status {response.status_code}", response.headers.get("Retry-After"))
        raise CliError(f"{self._host}: no answer to {TRIES} tries; run the command again, and it goes on from here")

    def _own_headers(self, url: httpx.URL, repository: str) -> dict[str, str]:
        """Return the authorization, for the registry itself only: an upload may lead to another host."""
        authorization = self._authorization.get(repository)
        return {"Authorization": authorization} if authorization and self._is_own(url) else {}

    def _is_own(self, url: httpx.URL) -> bool:
        return (url.scheme, url.host, url.port) == (self._base.scheme, self._base.host, self._base.port)

    def _wait(self, attempt: int, reason: str, retry_after: str | None) -> None:
        if attempt == TRIES:
            raise CliError(
                f"{self._host}: {reason} in each of {TRIES} tries; check the address, --ca and the proxy, then run the"
                " command again: it goes on from here"
            )
        seconds = float(retry_after) if retry_after and retry_after.isdecimal() else 2.0 ** (attempt - 1)
        self._pause(min(seconds, _LONGEST_PAUSE))

    def _authorize(self, response: httpx.Response, repository: str) -> str:
        """Return the value of Authorization that a challenge asks for."""
        scheme, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
        if scheme.lower() == "basic":
            if self._login is None:
                raise CliError(f"{self._host}: it needs a login; helm registry login {self._host}, or --username")
            return "Basic " + b64encode(f"{self._login.username}:{self._login.password}".encode()).decode()
        if scheme.lower() != "bearer":
            raise CliError(f"{self._host}: it asks for {scheme or 'no scheme'!r:.40}; Basic and Bearer are supported")
        return f"Bearer {self._fetch_token(dict(_CHALLENGE.findall(rest)), repository)}"

    def _fetch_token(self, challenge: dict[str, str], repository: str) -> str:
        realm = httpx.URL(challenge.get("realm", ""))
        if realm.scheme != "https" and not (realm.scheme == "http" and self._base.scheme == "http"):
            raise CliError(f"{self._host}: its token service is {str(realm)!r:.120}, not https; no login is sent to it")
        parameters = {"service": challenge.get("service", ""), "scope": f"repository:{repository}:pull,push"}
        login = (self._login.username, self._login.password) if self._login else None
        try:
            answer = self._client.get(realm, params=parameters, auth=login)
            document = answer.json() if answer.is_success else {}
        except (httpx.HTTPError, ValueError) as error:
            raise CliError(f"{realm.host}: the token service of {self._host} gave no token: {error}") from error
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str):
            raise CliError(
                f"{self._host}: {realm.host} answers status {answer.status_code} to the login for {repository}; check"
                " user and password (helm registry login, or --username)"
            )
        return token

    def _check(self, response: httpx.Response, repository: str, expected: set[int]) -> None:
        """Raise CliError with the registry's own words for any other status."""
        status = response.status_code
        if status in expected:
            return
        words = f"{self._host}/{repository}: status {status}{_quote_errors(response)}"
        if status in (401, 403):
            raise CliError(f"{words}; the login may not push there: helm registry login {self._host}, or --username")
        if status == httpx.codes.NOT_FOUND:
            raise CliError(f"{words}; create the repository first, or push below another path (--to)")
        if status == httpx.codes.METHOD_NOT_ALLOWED:
            raise CliError(f"{words}; the registry is read-only")
        if status == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
            raise CliError(f"{words}; raise the limit of a body in the proxy before the registry")
        raise CliError(words)


def _quote_errors(response: httpx.Response) -> str:
    try:
        errors = response.json()["errors"]
        return ": " + "; ".join(f"{error['code']} {error.get('message', '')}".strip() for error in errors)[:300]
    except (ValueError, KeyError, TypeError):
        return ""
