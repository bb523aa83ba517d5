"""Authentication and authorization by the API server: TokenReview, SubjectAccessReview, and the uid of a namespace.

Only tokens made for the registry are accepted: an attacker who takes over this process cannot use them elsewhere.

The service account may create these two reviews, get namespaces, and nothing else. Review results are cached for a few
seconds, so that a page of requests needs one review; a revoked right ends with the cache entry.
"""

import hashlib
import json
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import aiohttp

from r1plus_contract import names
from r1plus_contract.history import AUDIENCE
from r1plus_contract.process import connections
from r1plus_contract.process.streams import read_at_most
from r1plus_registry.errors import RegistryUnavailableError
from r1plus_registry.shares import Shares

TIMEOUT_SECONDS: Final = 5.0
CACHE_SECONDS: Final = 10.0
MOST_CACHED: Final = 1024
MOST_CONNECTIONS: Final = 16
"""To the API server."""
MOST_PENDING: Final = connections.MOST_CONNECTIONS
"""Questions to it that run or wait: as many as the registry has connections."""
MOST_PENDING_OF_OWNER: Final = 16
MOST_RUNNING_OF_OWNER: Final = 4
"""Questions for one user at once; for one address where the user is not known yet."""
MOST_TOKEN: Final = 16 * 1024
MOST_ANSWER: Final = 256 * 1024
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class User:
    """The user of a token, as the API server reports it."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """A read request: `verb` on our `resource`; an empty namespace or name means all."""

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else ""
        name = f"/{self.name}" if self.name else ""
        return f"{self.verb} {self.resource}.{names.GROUP}{name}{where}"


@dataclass(frozen=True, slots=True)
class ApiServer:
    """The API server and our credentials. Both files are read before each request, since the kubelet replaces them."""

    url: str
    ca: Path
    token: Path


@dataclass(slots=True)
class _ExpiringCache(Generic[T]):
    """The last results, for CACHE_SECONDS."""

    clock: Callable[[], float]
    entries: OrderedDict[Hashable, tuple[float, T]] = field(default_factory=OrderedDict)

    def get(self, key: Hashable) -> T | None:
        entry = self.entries.get(key)
        return entry[1] if entry and self.clock() < entry[0] else None

    def store(self, key: Hashable, value: T) -> T:
        self.entries[key] = self.clock() + CACHE_SECONDS, value
        self.entries.move_to_end(key)
        while len(self.entries) > MOST_CACHED:
            self.entries.popitem(last=False)
        return value


class Reviews:
    """An HTTP session to the API server; use it as a context manager."""

    def __init__(self, server: ApiServer, clock: Callable[[], float] = time.monotonic) -> None:
        """Raise OSError if the CA file cannot be used."""
        self._server = server
        self._pem: str | None = None
        self._tls = self._refresh_tls()
        self._session: aiohttp.ClientSession | None = None
        self._users: _ExpiringCache[User] = _ExpiringCache(clock)
        # Apart from the users': tokens that mean nothing push no user out.
        self._refused: _ExpiringCache[bool] = _ExpiringCache(clock)
        self._shares = Shares("The API server", MOST_PENDING, MOST_PENDING_OF_OWNER, MOST_RUNNING_OF_OWNER)
        self._rights: _ExpiringCache[bool] = _ExpiringCache(clock)

    async def __aenter__(self) -> "Reviews":
        connector = aiohttp.TCPConnector(limit=MOST_CONNECTIONS)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def authenticate(self, token: str, peer: str) -> User | None:
        """Return the user of a token, or None; `peer`: who sent it. Raise UnavailableError."""
        if not token or len(token) > MOST_TOKEN:
            return None
        key = hashlib.sha256(token.encode(errors="replace")).digest()
        if (user := self._users.get(key)) is not None:
            return user
        if self._refused.get(key):
            return None
        user = await self._review_token(token, f"address {peer}")
        if user is None:
            self._refused.store(key, True)
            return None
        return self._users.store(key, user)

    async def can_access(self, user: User, access: AccessRequest) -> bool:
        """Return whether the cluster's authorization allows it. Raise UnavailableError."""
        key = (user, access)
        if (cached := self._rights.get(key)) is not None:
            return cached
        attributes = {"group": names.GROUP, "version": names.VERSION, "verb": access.verb, "resource": access.resource}
        attributes |= {k: v for k, v in (("namespace", access.namespace), ("name", access.name)) if v}
        spec: dict[str, Any] = {"resourceAttributes": attributes, "user": user.name, "groups": list(user.groups)}
        spec |= {"uid": user.uid, "extra": {name: list(values) for name, values in user.extra}}
        status = await self._create_review("authorization.k8s.io", "SubjectAccessReview", spec, user.name)
        return self._rights.store(key, bool(status.get("allowed")) and not status.get("denied"))

    async def get_namespace_uid(self, name: str, user: User) -> str:
        """Return the uid of the namespace that has this name now, for a user; empty: none. Raise UnavailableError.

        Not cached: a namespace that was just recreated may belong to another tenant.
        """
        namespace = await self._request("GET", f"/api/v1/namespaces/{quote(name, safe='')}", "namespace", user.name)
        return str(namespace.get("metadata", {}).get("uid", ""))

    def _refresh_tls(self) -> ssl.SSLContext:
        """Return a TLS context with the CAs that the file has now. Older connections are not used again."""
        if (pem := self._server.ca.read_text()) != self._pem:
            self._tls, self._pem = ssl.create_default_context(cadata=pem), pem
        return self._tls

    async def _review_token(self, token: str, owner: str) -> User | None:
        status = await self._create_review(
            "authentication.k8s.io", "TokenReview", {"token": token, "audiences": [AUDIENCE]}, owner
        )
        # An authenticator without support for audiences returns none: its tokens are for the API server.
        if not status.get("authenticated") or AUDIENCE not in (status.get("audiences") or ()):
            return None
        user = status.get("user") or {}
        extra = tuple(sorted((name, tuple(values)) for name, values in (user.get("extra") or {}).items()))
        return User(user.get("username", ""), user.get("uid", ""), tuple(user.get("groups") or ()), extra)

    async def _create_review(self, group: str, kind: str, spec: dict[str, Any], owner: str) -> dict[str, Any]:
        body = {"apiVersion": f"{group}/v1", "kind": kind, "spec": spec}
        review = await self._request("POST", f"/apis/{group}/v1/{kind.lower()}s", kind, owner, body)
        status: dict[str, Any] = review.get("status") or {}
        return status

    async def _request(
        self, method: str, path: str, kind: str, owner: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the document of the response, within the owner's share; an empty one if the object does not exist."""
        async with self._shares.take(owner):
            return await self._send(method, path, kind, body)

    async def _send(self, method: str, path: str, kind: str, body: dict[str, Any] | None) -> dict[str, Any]:
        if self._session is None:
            raise RuntimeError("Reviews: not entered")
        try:
            # Files of a kilobyte in memory.
            headers = {"Authorization": f"Bearer {self._server.token.read_text().strip()}"}
            url, tls = self._server.url + path, self._refresh_tls()
            async with self._session.request(
                method, url, json=body, headers=headers, allow_redirects=False, ssl=tls
            ) as answer:
                text = await read_at_most(answer.content.iter_any(), MOST_ANSWER)
                if method == "GET" and answer.status == 404:
                    return {}
                if answer.status not in (200, 201):
                    raise RegistryUnavailableError(
                        f"The API server refused the {kind}: {answer.status} {_extract_message(text)}"
                    )
                document: dict[str, Any] = json.loads(text)
                return document
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise RegistryUnavailableError(f"The API server did not answer the {kind}: {reason}") from error


def _extract_message(text: bytes) -> str:
    try:
        return str(json.loads(text).get("message", ""))[:300]
    except (ValueError, AttributeError):
        return text.decode(errors="replace")[:300]
