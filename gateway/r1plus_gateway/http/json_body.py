"""Request bodies: strict JSON. What one reader takes and another refuses is refused here."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from aiohttp import web

from r1plus_gateway.http.errors import ApiError

Json = Any
MOST_DEPTH: Final = 64
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
        ApiError: 400, 408, 413 or 415.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ApiError(415, "unsupported_media_type", "Content-Encoding is not supported; send the body as it is")
    media = request.content_type
    if media not in ("application/json", "application/octet-stream"):  # the second: no header was sent
        raise ApiError(415, "unsupported_media_type", f"Content-Type {media!r:.80} is not application/json")
    try:
        async with asyncio.timeout(seconds):
            body = await request.read()
    except TimeoutError:
        raise ApiError(408, "request_timeout", f"the body did not arrive within {seconds:g} s") from None
    return parse_object(body)


def parse_object(body: bytes) -> dict[str, Json]:
    """Parse a JSON object. Raises ApiError 400."""
    try:
        value = _parse(body)
    except RecursionError:
        raise _bad_json(f"it is nested more than {MOST_DEPTH} levels deep") from None
    except ValueError as error:
        raise _bad_json(str(error)) from error
    if not isinstance(value, dict):
        raise _bad_json(f"it is {describe(value)}, not an object")
    return value


def _parse(body: bytes) -> Json:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from error
    value = json.loads(text, object_pairs_hook=_build_object, parse_constant=_refuse_constant, parse_float=_parse_float)
    _check(value, MOST_DEPTH)
    return value


def _build_object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    built = dict(pairs)
    if len(built) != len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {double!r:.80} appears twice in one object")
    return built


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _parse_float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text:.40} is beyond every float")
    return number


def _check(value: Json, depth: int) -> None:
    """Refuse what no text may hold, and what is nested too deep."""
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict | list):
        if not depth:
            raise ValueError(f"it is nested more than {MOST_DEPTH} levels deep")
        if isinstance(value, dict):
            for key, item in value.items():
                _check_text(key)
                _check(item, depth - 1)
        else:
            for item in value:
                _check(item, depth - 1)


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("a string has the character NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a string has half of a surrogate pair") from None


def describe(value: Json) -> str:
    """Return what kind of JSON value this is, for messages."""
    return _KINDS.get(type(value), "a value")


def _bad_json(reason: str) -> ApiError:
    return ApiError(400, "invalid_json", f"the body is not the JSON that is expected: {reason:.200}")
