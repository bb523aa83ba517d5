"""Request bodies: strict JSON. What one reader takes and another refuses is refused here."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

import orjson
from aiohttp import web

from r1plus_gateway.http.errors import RequestError

Json = Any
JSON_TYPE: Final = "application/json"
MERGE_PATCH_TYPE: Final = "application/merge-patch+json"
"""Of RFC 7396, for PATCH."""
MOST_DEPTH: Final = 64
MOST_PARTS: Final = 50_000
"""Keys and items of all objects and lists together: a body of a few megabytes must not hold up the others."""
LONE_SURROGATE: Final = (
    r"a lone surrogate, such as \ud800, is no character; write the character itself, or both of its surrogates"
)
_KINDS: Final[Mapping[type[Any], str]] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    type(None): "null",
}


async def read_object(request: web.Request, seconds: float) -> dict[str, Json]:
    """Read the body as a JSON object.

    Raises:
        RequestError: 400, 408, 413 or 415.
    """
    return parse_object(await read_body(request, seconds))


async def read_body(request: web.Request, seconds: float) -> bytearray:
    """Read the body, of which the request keeps nothing.

    Raises:
        RequestError: 408, 413 or 415.
    """
    headers = request.headers
    for name, plain in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
        if headers.get(name, plain).strip().lower() != plain:
            raise RequestError(415, "unsupported_media_type", f"{name} is not supported; send the body as it is")
    types = (JSON_TYPE, MERGE_PATCH_TYPE) if request.method == "PATCH" else (JSON_TYPE,)
    if "Content-Type" in headers and request.content_type not in types:
        media = headers["Content-Type"]
        raise RequestError(415, "unsupported_media_type", f"Content-Type {media!r:.80} is not {' or '.join(types)}")
    if (request.charset or "utf-8").lower() not in ("utf-8", "us-ascii"):
        raise RequestError(415, "unsupported_media_type", "JSON is UTF-8; leave the charset of Content-Type out")
    if (request.content_length or 0) > request.client_max_size:
        raise _refuse_size(request.content_length or 0, request)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > request.client_max_size:
                    raise _refuse_size(len(body), request)
    except TimeoutError:
        raise RequestError(408, "request_timeout", f"the body did not arrive within {seconds:g} s") from None
    return body


def _refuse_size(size: int, request: web.Request) -> RequestError:
    message = f"the body has {size} bytes or more, more than {request.client_max_size}; send less"
    return RequestError(413, "request_too_large", message)


def parse_object(body: bytes | bytearray) -> dict[str, Json]:
    """Parse a JSON object. Raises RequestError 400."""
    try:
        value = _parse(body)
    except ValueError as error:
        remedy = f"; {LONE_SURROGATE}" if "surrogate" in str(error) else ""
        raise _bad_json(f"{error}{remedy}") from error
    if not isinstance(value, dict):
        raise _bad_json(f"it is {describe(value)}, not an object")
    return value


def _parse(body: bytes | bytearray) -> Json:
    """Parse twice: orjson is strict and quick, so what costs too much is refused before json looks for double keys."""
    _check(orjson.loads(body))
    return json.loads(body, object_pairs_hook=_build_object, parse_int=_parse_integer)


def _parse_integer(text: str) -> int | float:
    """Return an integer; one beyond 64 bits as a float, as orjson does, which writes no other."""
    value = int(text)
    return value if -(2**63) <= value < 2**64 else float(value)


def _build_object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    built = dict(pairs)
    if len(built) != len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {double!r:.80} appears twice in one object")
    return built


def _check(value: Json) -> None:
    """Refuse what no text may hold, what is nested too deep, and what has too many parts."""
    parts = 0
    stack = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, str):
            if "\0" in item:
                raise ValueError("a string has the character NUL")
        elif isinstance(item, dict | list):
            parts += len(item)
            if depth > MOST_DEPTH or parts > MOST_PARTS:
                raise ValueError(f"it has more than {MOST_DEPTH} levels, or more than {MOST_PARTS} values")
            if isinstance(item, dict):
                stack += [(key, depth) for key in item]
                item = item.values()
            stack += [(child, depth + 1) for child in item]


def describe(value: Json) -> str:
    """Return what kind of JSON value this is, for messages."""
    return _KINDS.get(type(value), "a value")


def _bad_json(reason: str) -> RequestError:
    return RequestError(400, "invalid_json", f"the body is not the JSON that is expected: {reason:.200}")
