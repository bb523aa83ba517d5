"""Tokens of Kubernetes ServiceAccounts, verified offline against the cluster's JWKS.

The operator publishes the JWKS in the gateway's ConfigMap, and again when the cluster rotates its keys; the file is
read again when it changes. A TokenReview would need a right at the API server, which the gateway does not have.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jwt

from r1plus_contract.gateway import GATEWAY, GATEWAY_ADMIN
from r1plus_gateway.access.caller import AccessError, Caller, CallerKind, Limits

log = logging.getLogger(__name__)
AUDIENCE: Final = GATEWAY
"""Of tokens for any gateway. Those for one tenant's alone have its namespace behind a slash."""
ADMIN: Final = GATEWAY_ADMIN
"""The ServiceAccount of the tenant's own namespace whose tokens reach the admin API."""
ALGORITHMS: Final = ("RS256", "ES256")
"""Those that an API server signs with."""
LONGEST_LIFE_SECONDS: Final = 600
LEEWAY_SECONDS: Final = 10
MOST_TOKEN_BYTES: Final = 8192
_REQUIRED: Final = ("exp", "iat", "nbf", "iss", "aud", "sub")


@dataclass(frozen=True, slots=True)
class Grant:
    """What ServiceAccounts of one namespace may use."""

    models: frozenset[str] | None = None
    limits: Limits = field(default_factory=Limits)


FindGrant = Callable[[str], Grant | None]
"""From a namespace to its grant; None: it may not call."""


@dataclass(frozen=True, slots=True)
class _Account:
    namespace: str
    name: str
    issued_at: float


class JwksFile:
    """The signing keys in a file, read again whenever the file changes. A file that cannot be read keeps the last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._keys: dict[str, list[jwt.PyJWK]] = {}
        self.problem = ""
        """Why the file cannot be used now; empty while it can."""

    def find_keys(self, key_id: str) -> list[jwt.PyJWK]:
        """Return the keys of an id, whose algorithm is allowed."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp != self._stamp:
                self._keys = _read_keys(self._path)
                self._stamp = stamp
                self._set_problem("")
        except (OSError, ValueError, KeyError, TypeError, RecursionError, jwt.PyJWTError) as error:
            self._set_problem(
                f"{self._path} has no usable JWKS ({type(error).__name__}), so ServiceAccounts cannot call;"
                " the operator writes it into the gateway's ConfigMap"
            )
        return self._keys.get(key_id, [])

    def _set_problem(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.warning("JWKS cannot be used: %s", problem)
        self.problem = problem


class TokenVerifier:
    """Verifies tokens of ServiceAccounts and says who calls."""

    def __init__(
        self, jwks: JwksFile, issuer: str, namespace: str, find_grant: FindGrant, not_before: float = 0.0
    ) -> None:
        """Take the cluster's issuer, the tenant's namespace, which namespaces may call, and when its own was made."""
        self._jwks = jwks
        self._issuer = issuer
        self._namespace = namespace
        self._audiences = (AUDIENCE, f"{AUDIENCE}/{namespace}")
        self._find_grant = find_grant
        self._not_before = not_before

    def verify(self, token: str) -> Caller | None:
        """Return the caller of a valid token, else None.

        Raises:
            AccessError: 403, the token is valid and its namespace may not call.
        """
        account = self._read_account(token)
        if account is None or (account.namespace == self._namespace and account.issued_at < self._not_before):
            return None
        caller_id = f"{account.namespace}/{account.name}"
        if (account.namespace, account.name) == (self._namespace, ADMIN):
            return Caller(CallerKind.ADMIN, caller_id, namespace=account.namespace)
        grant = self._find_grant(account.namespace)
        if grant is None:
            raise AccessError(
                403,
                "namespace_not_allowed",
                f"Namespace {account.namespace} may not call this gateway: it is not in the tenant's list."
                " Ask the platform team to add it to spec.gateway.from of the R1PlusTenant.",
            )
        return Caller(
            CallerKind.SERVICE_ACCOUNT,
            caller_id,
            namespace=account.namespace,
            models=grant.models,
            limits=grant.limits,
            # A namespace makes as many accounts as it likes.
            group="" if account.namespace == self._namespace else account.namespace,
        )

    def _read_account(self, token: str) -> _Account | None:
        if len(token) > MOST_TOKEN_BYTES:
            return None
        try:
            header = jwt.get_unverified_header(token)
            key_id = header.get("kid")
            keys = self._jwks.find_keys(key_id) if isinstance(key_id, str) else []
            claims = self._decode(token, keys)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError):
            return None
        return None if claims is None else _find_account(claims)

    def _decode(self, token: str, keys: list[jwt.PyJWK]) -> dict[str, Any] | None:
        for key in keys:
            try:
                return jwt.decode(
                    token,
                    key,
                    algorithms=[key.algorithm_name],
                    audience=self._audiences,
                    issuer=self._issuer,
                    leeway=LEEWAY_SECONDS,
                    options={"require": list(_REQUIRED), "enforce_minimum_key_length": True},
                )
            except jwt.InvalidSignatureError:
                continue  # Two keys may have one id while they are rotated.
        return None


def _find_account(claims: dict[str, Any]) -> _Account | None:
    """Return the ServiceAccount of verified claims; None if they are not those of a short-lived token of one."""
    issued_at, expires_at = claims["iat"], claims["exp"]
    if not all(isinstance(moment, int | float) and not isinstance(moment, bool) for moment in (issued_at, expires_at)):
        return None
    if not 0 < expires_at - issued_at <= LONGEST_LIFE_SECONDS:
        return None
    kubernetes = claims.get("kubernetes.io")
    account = kubernetes.get("serviceaccount") if isinstance(kubernetes, dict) else None
    if not isinstance(kubernetes, dict) or not isinstance(account, dict):
        return None
    namespace, name = kubernetes.get("namespace"), account.get("name")
    if not isinstance(namespace, str) or not isinstance(name, str):
        return None
    if not namespace or claims["sub"] != f"system:serviceaccount:{namespace}:{name}":
        return None
    return _Account(namespace, name, issued_at)


def _read_keys(path: Path) -> dict[str, list[jwt.PyJWK]]:
    documents = json.loads(path.read_bytes())["keys"]
    keys: dict[str, list[jwt.PyJWK]] = {}
    for document in documents:
        if not isinstance(document, dict) or not isinstance(document.get("kid"), str):
            continue
        if document.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(document)
        except jwt.PyJWTError:
            continue  # Of a kind that this program does not know: another key may be usable.
        if key.algorithm_name in ALGORITHMS:
            keys.setdefault(document["kid"], []).append(key)
    if not keys:
        raise ValueError("no key with an allowed algorithm")
    return keys
