"""From an `Authorization` header to a caller: an API key, or the token of a ServiceAccount."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from r1plus_gateway.access.api_keys import PREFIX, SCOPE_END_USERS, KeyFinder, verify_key
from r1plus_gateway.access.caller import AccessError, Caller
from r1plus_gateway.access.service_accounts import TokenVerifier

MOST_END_USER_BYTES: Final = 256
REFUSAL: Final = (
    "The credential is missing, malformed, unknown, expired or revoked."
    " Send `Authorization: Bearer` with an API key of this tenant, or with a ServiceAccount token"
    " of audience r1plus-gateway that lives for at most 10 minutes."
)
"""One message for every credential that is refused: it says nothing about which keys exist."""


class CredentialAuthenticator:
    """Implements `Authenticator`."""

    def __init__(self, keys: KeyFinder, tokens: TokenVerifier, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._tokens = tokens
        self._clock = clock

    async def authenticate(self, authorization: str, end_user: str) -> Caller:
        """Return the caller of the header's value. Raises AccessError, as `Authenticator` says."""
        scheme, _, credential = authorization.partition(" ")
        if scheme.lower() != "bearer":
            credential = ""
        caller = await self._find_caller(credential)
        if caller is None:
            raise AccessError(401, "invalid_api_key", REFUSAL)
        return _add_end_user(caller, end_user) if end_user else caller

    async def _find_caller(self, credential: str) -> Caller | None:
        if credential.count(".") == 2 and not credential.startswith(PREFIX):
            return self._tokens.verify(credential)
        record = await verify_key(credential, self._keys, self._clock())
        return record.caller if record else None


def _add_end_user(caller: Caller, end_user: str) -> Caller:
    if SCOPE_END_USERS not in caller.scopes:
        raise AccessError(
            403,
            "end_user_not_allowed",
            "x-r1plus-end-user is refused: this caller may not name end users."
            f" Leave the header out, or use an API key with scope {SCOPE_END_USERS}.",
        )
    if any("\ud800" <= one <= "\udfff" for one in end_user):  # Stands for a byte that is no UTF-8.
        raise AccessError(
            403,
            "end_user_not_allowed",
            "x-r1plus-end-user is refused: it is not UTF-8. Python's http.client, urllib and requests send text as"
            " Latin-1: give them the name's bytes, name.encode().",
        )
    if not can_name_end_user(end_user):
        raise AccessError(
            403,
            "end_user_not_allowed",
            f"x-r1plus-end-user is refused: it has more than {MOST_END_USER_BYTES} bytes, or control characters.",
        )
    return replace(caller, end_user=end_user)


def can_name_end_user(text: str) -> bool:
    """Return whether `x-r1plus-end-user` can have this value, without what HTTP takes from a header's ends."""
    is_short = len(text.encode(errors="replace")) <= MOST_END_USER_BYTES
    return is_short and text.isprintable() and text == text.strip(" ")
