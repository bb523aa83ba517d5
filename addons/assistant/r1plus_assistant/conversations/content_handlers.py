"""What handlers of stored content share: who may call, pages, ids, and errors."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

from aiohttp import web

from r1plus_assistant.responses.response_items import COMPLETED
from r1plus_assistant.store.tenant_content import TenantContent
from r1plus_gateway.access.caller import AccessError, Caller, CallerKind
from r1plus_gateway.access.turns import Places
from r1plus_gateway.http.accounting.admission import SearchTurns
from r1plus_gateway.http.answer_schemas import Schema
from r1plus_gateway.http.body.bodies import BodyBudget
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.errors import InvalidFieldError, RequestError
from r1plus_gateway.http.operations import Parameter, read_query
from r1plus_gateway.serving.errors import QueueFullError
from r1plus_gateway.settings import GatewaySettings
from r1plus_gateway.store.content.content import ContentLimitError, Listed, ListPage, StoredItem
from r1plus_gateway.store.keys.content_cipher import UnreadableContentError

T = TypeVar("T")
R = TypeVar("R", bound=web.StreamResponse)
MOST_ENTRIES: Final = 100
MOST_ID_CHARACTERS: Final = 128
ADMIN_HAS_NONE: Final = (
    "ServiceAccount r1plus-gateway-admin has no stored content: it administers. Call with the API key,"
    " or with the token, whose they are."
)
NOT_STORED: Final = (
    "this tenant stores no conversations, responses and memories; send all messages with each request, or ask the"
    " platform team to set spec.data.retentionDays of the R1PlusTenant"
)
UNREADABLE: Final = (
    "what is stored under this id cannot be decrypted: its key was destroyed by an erasure, or it was changed."
    " Delete it, and begin a new one"
)
UNREADABLE_ENTRY: Final = (
    "an entry of this list cannot be decrypted: its key was destroyed by an erasure before a backup was restored, or it"
    " was changed. The tenant's administrator removes it: r1plus tenant erase, once more for the same end user or key"
)
_INCLUDED: Final[Schema] = {"type": "string", "minLength": 1}
INCLUDE: Final = (
    Parameter("include", "Ignored: nothing is left out that it could ask for.", _INCLUDED, is_repeatable=True),
    Parameter("include[]", "Ignored, as `include`.", _INCLUDED, is_repeatable=True),
)
PAGE: Final = (
    Parameter("limit", "Entries; 20 without it.", {"type": "integer", "minimum": 1, "maximum": MOST_ENTRIES}),
    Parameter("order", "By time: `asc`, or `desc`, the newest first.", {"enum": ["asc", "desc"]}),
    Parameter("after", "Id of the last entry of the page before.", {"type": "string", "minLength": 1}),
    *INCLUDE,
)
Authenticate = Callable[[web.Request], Awaitable[Caller]]
ContentHandler = Callable[[web.Request, Caller], Awaitable[R]]


class ContentTurns:
    """Requests of each caller that use stored content now: all share the one writer."""

    def __init__(self, searches: SearchTurns) -> None:
        self._places = Places()
        self.searches: Final = searches

    def take(self, caller: Caller, most: int) -> AbstractContextManager[None]:
        """Count a request for a block.

        Raises:
            AccessError: 429, the caller runs so many already.
        """

        def build_refusal() -> AccessError:
            message = f"{most} requests of yours use stored content now; wait for one to end"
            return AccessError(429, "rate_limit_exceeded", message, retry_after=1.0)

        return self._places.take(caller.group_id, most, build_refusal)


class ContentHandlers:
    """The common part of handlers of stored content."""

    def __init__(
        self,
        content: TenantContent,
        authenticate: Authenticate,
        turns: ContentTurns,
        bodies: BodyBudget,
        read_settings: Callable[[], GatewaySettings],
    ) -> None:
        self._content = content
        self._authenticate = authenticate
        self._turns = turns
        self._bodies = bodies
        self._read_settings = read_settings

    def _guard(self, handler: ContentHandler[R]) -> Callable[[web.Request], Awaitable[R]]:
        """Return a handler for any caller but administrators, whose errors are answers."""

        async def handle(request: web.Request) -> R:
            caller = await self._authenticate(request)
            if caller.kind is CallerKind.ADMIN:
                raise AccessError(403, "admin_not_allowed", ADMIN_HAS_NONE)
            is_list = request.method == "GET" and not request.match_info
            queue_per_key = self._read_settings().limits.queue_per_key
            with self._turns.take(caller, queue_per_key), convert_content_errors(is_list=is_list):
                return await handler(request, caller)

        return handle

    def _require_storage(self) -> None:
        """Raise RequestError 403 where the tenant's policy stores nothing."""
        if not self._content.is_stored:
            raise RequestError(403, "storage_disabled", NOT_STORED)

    @contextlib.asynccontextmanager
    async def _read_body(self, request: web.Request, caller: Caller) -> AsyncIterator[Fields]:
        """Yield the body's fields. A body counts as long as it waits to be stored: it is in memory."""
        with self._convert_full_queue():
            async with self._bodies.read(request, caller, self._read_settings().limits) as body:
                yield body.fields

    @contextlib.contextmanager
    def _convert_full_queue(self) -> Iterator[None]:
        """Turn a refusal of what waits already into its answer."""
        try:
            yield
        except QueueFullError as error:
            later = {"Retry-After": str(self._read_settings().limits.retry_after_seconds)}
            raise RequestError(503, "queue_full", str(error), headers=later) from error


@contextlib.contextmanager
def convert_content_errors(*, is_list: bool = False) -> Iterator[None]:
    """Turn what stored content raises into answers; `is_list`: to a request that names no id."""
    try:
        yield
    except ContentLimitError as error:
        raise RequestError(413, "storage_limit_exceeded", str(error)) from error
    except UnreadableContentError as error:
        raise RequestError(410, "content_unreadable", UNREADABLE_ENTRY if is_list else UNREADABLE) from error


def read_id(request: web.Request, parameter: Parameter) -> str:
    """Return an id of the path. Raises RequestError 404 for what no database should be asked for."""
    return check_id(request.match_info[parameter.name])


def check_id(name: str) -> str:
    """Return an id as it is. Raises RequestError 404 for what no database should be asked for."""
    if not name.isprintable() or len(name) > MOST_ID_CHARACTERS:
        raise refuse_unknown(name)
    return name


def refuse_unknown(name: str) -> RequestError:
    """Return the refusal of an id that this caller has nothing under."""
    message = f"you have stored nothing under the id {name!r:.80}; what other keys and end users store is not yours"
    return RequestError(404, "not_found", message)


def require(found: T | None, name: str) -> T:
    """Return what was found under an id. Raises RequestError 404 for nothing."""
    if found is None:
        raise refuse_unknown(name)
    return found


def read_page(request: web.Request) -> ListPage:
    """Return which part of a list a request asks for. Raises InvalidFieldError."""
    return read_page_of(read_query(request, PAGE))


def read_page_of(query: Mapping[str, str]) -> ListPage:
    """Return which part of a list a query asks for. Raises InvalidFieldError."""
    text, order = query.get("limit", "20"), query.get("order", "desc")
    if not (text.isascii() and text.isdecimal() and len(text) <= 3 and 1 <= int(text) <= MOST_ENTRIES):
        raise InvalidFieldError("limit", f"{text!r:.40} is not a number from 1 to {MOST_ENTRIES}")
    if order not in ("asc", "desc"):
        raise InvalidFieldError("order", f"{order!r:.40} is not one of asc, desc")
    return ListPage(int(text), query.get("after", ""), order == "asc")


def require_page(listed: Listed[T] | None, page: ListPage) -> Listed[T]:
    """Return a part of a list. Raises InvalidFieldError if it was to come after an entry that is not there."""
    if listed is None:
        raise InvalidFieldError("after", f"{page.after!r:.80} is no entry of this list; send the id of the last one")
    return listed


def describe_list(listed: Listed[T], describe: Callable[[T], Mapping[str, Any]]) -> dict[str, Any]:
    """Return a part of a list as OpenAI's clients read it."""
    entries = [describe(entry) for entry in listed.entries]
    return {
        "object": "list",
        "data": entries,
        "first_id": entries[0]["id"] if entries else None,
        "last_id": entries[-1]["id"] if entries else None,
        "has_more": listed.has_more,
    }


def describe_item(item: StoredItem) -> dict[str, Any]:
    """Return an item as OpenAI's clients read it."""
    return {"id": item.id, "status": COMPLETED, **item.content}
