"""How refusals become answers where a request has no form: calculations and vectors."""

import contextlib
from collections.abc import Iterator

from r1plus_gateway.access.caller import AccessError
from r1plus_gateway.http.accounting.admission import Holds
from r1plus_gateway.http.completions.exchange import Exchange, GatewayParts
from r1plus_gateway.http.errors import FieldNames, convert_access_error, convert_serving_error
from r1plus_gateway.serving.errors import ServingError


@contextlib.contextmanager
def convert_refusals(parts: GatewayParts, holds: Holds, exchange: Exchange, field: str) -> Iterator[None]:
    """Turn what refuses a request into an answer; `field`: of the body, to blame for its content.

    Raises:
        RequestError: the request was refused.
    """
    try:
        yield
    except AccessError as error:
        if exchange.caller is not None:
            holds.remember(exchange.caller, error)
        raise convert_access_error(error) from error
    except ServingError as error:
        retry_after = parts.read_settings().limits.retry_after_seconds
        raise convert_serving_error(error, retry_after, FieldNames(field)) from error
