"""How refusals become answers where a request has no form: calculations and vectors."""

import contextlib
from collections.abc import Iterator

from aiohttp import web

from r1plus_gateway.access.caller import AccessError
from r1plus_gateway.http.accounting.admission import Holds
from r1plus_gateway.http.errors import FieldNames, convert_access_error, convert_serving_error
from r1plus_gateway.http.parts import GatewayParts
from r1plus_gateway.http.request_keys import CALLER
from r1plus_gateway.serving.errors import ServingError


@contextlib.contextmanager
def convert_refusals(parts: GatewayParts, holds: Holds, request: web.Request, field: str = "") -> Iterator[None]:
    """Turn what refuses a request into an answer; `field`: of the body, to blame for its content; empty: the
    request has no content that could be refused so.

    Raises:
        RequestError: the request was refused.
    """
    try:
        yield
    except AccessError as error:
        if (caller := request.get(CALLER)) is not None:
            holds.remember(caller, error)
        raise convert_access_error(error) from error
    except ServingError as error:
        retry_after = parts.read_settings().limits.retry_after_seconds
        raise convert_serving_error(error, retry_after, FieldNames(field)) from error
