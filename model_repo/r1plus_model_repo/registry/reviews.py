"""Asks the API server who bears a token (TokenReview), whether that one may read (SubjectAccessReview), and where.

Only tokens that were made for the registry are taken: elsewhere they are of no use to who took this process over.

The service account that asks may create these two reviews, get namespaces, and nothing else. Answers of reviews count
for a few seconds, so that a page of requests is one review; a right that was taken away ends with them.
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
from r1plus_contract.streams import read_at_most
from r1plus_model_repo.registry.errors import UnavailableError

TIMEOUT_SECONDS: Final = 5.0
REMEMBERED_SECONDS: Final = 10.0
MOST_REMEMBERED: Final = 1024
MOST_TOKEN: Final = 16 * 1024
MOST_ANSWER: Final = 256 * 1024
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class User:
    """Who bears a token, as the API server says."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Access:
    """What somebody wants to read: `verb` on our `resource`; an empty namespace or name stands for all."""

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
    """Where it is and who we are. Both files are read before each request, since the kubelet replaces them."""

    url: str
    ca: Path
    token: Path


@dataclass(slots=True)
class _Remembered(Generic[T]):
    """The last answers, for a while."""

    clock: Callable[[], float]
    kept: OrderedDict[Hashable, tuple[float, T]] = field(default_factory=OrderedDict)

    def get(self, key: Hashable) -> T | None:
        found = self.kept.get(key)
        return found[1] if found and self.clock() < found[0] else None

    def put(self, key: Hashable, value: T) -> T:
        self.kept[key] = self.clock() + REMEMBERED_SECONDS, value
        self.kept.move_to_end(key)
        while len(self.kept) > MOST_REMEMBERED:
            self.kept.popitem(last=False)
        return value


class Reviews:
    """An HTTP session to the API server; use it as a context."""

    def __init__(self, server: ApiServer, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises OSError where the file of CAs cannot be used."""
        self._server = server
        self._pem: str | None = None
        self._tls = self._trust()
        self._session: aiohttp.ClientSession | None = None
        self._users: _Remembered[tuple[User | None]] = _Remembered(clock)
        self._rights: _Remembered[bool] = _Remembered(clock)

    async def __aenter__(self) -> "Reviews":
        connector = aiohttp.TCPConnector(limit=16)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def user(self, token: str) -> User | None:
        """Who bears it; None where nobody does. Raises UnavailableError."""
        if not token or len(token) > MOST_TOKEN:
            return None
        key = hashlib.sha256(token.encode(errors="replace")).digest()
        if (known := self._users.get(key)) is not None:
            return known[0]
        return self._users.put(key, (await self._review(token),))[0]

    async def may(self, user: User, access: Access) -> bool:
        """Whether RBAC (or whatever decides there) lets them. Raises UnavailableError."""
        key = (user, access)
        if (known := self._rights.get(key)) is not None:
            return known
        attributes = {"group": names.GROUP, "version": names.VERSION, "verb": access.verb, "resource": access.resource}
        attributes |= {k: v for k, v in (("namespace", access.namespace), ("name", access.name)) if v}
        spec: dict[str, Any] = {"resourceAttributes": attributes, "user": user.name, "groups": list(user.groups)}
        spec |= {"uid": user.uid, "extra": {name: list(values) for name, values in user.extra}}
        status = await self._create("authorization.k8s.io", "SubjectAccessReview", spec)
        return self._rights.put(key, bool(status.get("allowed")) and not status.get("denied"))

    async def namespace_uid(self, name: str) -> str:
        """Which namespace of that name there is now; empty: none. Raises UnavailableError.

        Never remembered: one that was made again a moment ago is another tenant's.
        """
        found = await self._ask("GET", f"/api/v1/namespaces/{quote(name, safe='')}", "namespace")
        return str(found.get("metadata", {}).get("uid", ""))

    def _trust(self) -> ssl.SSLContext:
        """The CAs that the file holds now. A connection that began with others is not used any more."""
        if (pem := self._server.ca.read_text()) != self._pem:
            self._tls, self._pem = ssl.create_default_context(cadata=pem), pem
        return self._tls

    async def _review(self, token: str) -> User | None:
        status = await self._create("authentication.k8s.io", "TokenReview", {"token": token, "audiences": [AUDIENCE]})
        # An authenticator that knows no audiences answers none: what it knows is the API server's.
        if not status.get("authenticated") or AUDIENCE not in (status.get("audiences") or ()):
            return None
        user = status.get("user") or {}
        extra = tuple(sorted((name, tuple(values)) for name, values in (user.get("extra") or {}).items()))
        return User(user.get("username", ""), user.get("uid", ""), tuple(user.get("groups") or ()), extra)

    async def _create(self, group: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        body = {"apiVersion": f"{group}/v1", "kind": kind, "spec": spec}
        made = await self._ask("POST", f"/apis/{group}/v1/{kind.lower()}s", kind, body)
        status: dict[str, Any] = made.get("status") or {}
        return status

    async def _ask(self, method: str, path: str, kind: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The document that is answered; an empty one where what is asked for is not there."""
        if self._session is None:
            raise RuntimeError("Reviews: not entered")
        try:
            # Files of a kilobyte in memory.
            headers = {"Authorization": f"Bearer {self._server.token.read_text().strip()}"}
            url, tls = self._server.url + path, self._trust()
            async with self._session.request(
                method, url, json=body, headers=headers, allow_redirects=False, ssl=tls
            ) as answer:
                text = await read_at_most(answer.content.iter_any(), MOST_ANSWER)
                if method == "GET" and answer.status == 404:
                    return {}
                if answer.status not in (200, 201):
                    raise UnavailableError(f"The API server refused a {kind}: {answer.status} {_message(text)}")
                found: dict[str, Any] = json.loads(text)
                return found
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            said = str(error) or type(error).__name__
            raise UnavailableError(f"The API server did not answer a {kind}: {said}") from error


def _message(text: bytes) -> str:
    try:
        return str(json.loads(text).get("message", ""))[:300]
    except (ValueError, AttributeError):
        return text.decode(errors="replace")[:300]
