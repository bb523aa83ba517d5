"""`POST /v1/calculate`: one expression, its exact and numeric value, and whether a second method confirmed it."""

from typing import Any, Final

import orjson
from aiohttp import web

from r1plus_contract.calculator import (
    DEFAULT_DIGITS,
    MOST_DIGITS,
    Calculation,
    CalculationFailure,
    CalculatorReply,
    FailureCode,
)
from r1plus_contract.calculator_grammar.errors import CalculatorError
from r1plus_contract.calculator_grammar.limits import MOST_BYTES
from r1plus_contract.calculator_grammar.parser import parse
from r1plus_contract.calculator_grammar.sizes import check_sizes
from r1plus_gateway.access.caller import AccessError, Caller, CallerKind, Outcome
from r1plus_gateway.assistant.calculation.client import CalculatorUnavailableError
from r1plus_gateway.assistant.calculation.desk import CalculatorDesk, CallerBusyError
from r1plus_gateway.assistant.math.math_mode import NOT_CONFIGURED
from r1plus_gateway.http.accounting.admission import Holds
from r1plus_gateway.http.accounting.bill import open_bill
from r1plus_gateway.http.accounting.refusals import convert_refusals
from r1plus_gateway.http.body.bodies import BodyBudget
from r1plus_gateway.http.body.field_tables import IntegerField, StringField, Table
from r1plus_gateway.http.completions.exchange import LEFT, Exchange, GatewayParts, authenticate
from r1plus_gateway.http.errors import NotConfiguredError, RequestError

CALCULATOR: Final = "r1plus/calculator"
"""In usage, audit and metrics, in the place of a model's name. No model has a slash in its name."""
EXPRESSION: Final = StringField("expression", most=MOST_BYTES, is_required=True)
DIGITS: Final = IntegerField("digits", 1, MOST_DIGITS)
CALCULATE: Final = Table((EXPRESSION, DIGITS))
ADMINISTERS_ONLY: Final = (
    "ServiceAccount r1plus-gateway-admin administers and does not calculate. Call with an API key, which"
    " `r1plus key create` makes, or with a token of another ServiceAccount."
)


class Calculations:
    """Answers the requests that calculate. A request counts in limits and usage; it uses no tokens."""

    def __init__(self, parts: GatewayParts, desk: CalculatorDesk, bodies: BodyBudget, holds: Holds) -> None:
        self._parts = parts
        self._desk = desk
        self._bodies = bodies
        self._holds = holds

    async def answer(self, exchange: Exchange) -> web.Response:
        """Answer one request.

        Raises:
            RequestError: it is refused, or there is no result.
        """
        with convert_refusals(self._parts, self._holds, exchange, "expression"):
            return await self._answer(exchange)

    async def _answer(self, exchange: Exchange) -> web.Response:
        caller = await authenticate(self._parts, exchange)
        if caller.kind is CallerKind.ADMIN:
            raise AccessError(403, "admin_not_allowed", ADMINISTERS_ONLY)
        self._holds.check(caller)
        exchange.model = CALCULATOR
        limits = self._parts.read_settings().limits
        async with self._bodies.read(exchange.request, caller, limits) as body:
            expression = EXPRESSION.read(body.fields)
            digits = DIGITS.read(body.fields) or DEFAULT_DIGITS
            CALCULATE.refuse_rest(body.fields)
        if not self._desk.is_configured:
            raise NotConfiguredError("calculator_not_configured", NOT_CONFIGURED)
        _check_expression(expression)
        try:
            with self._desk.take_place(caller.group_id):
                return await self._calculate(exchange, caller, expression, digits)
        except CallerBusyError as error:
            raise self._refuse_busy(str(error)) from error

    async def _calculate(self, exchange: Exchange, caller: Caller, expression: str, digits: int) -> web.Response:
        parts = self._parts
        bill = await open_bill(parts.ledger, parts.metrics, parts.tasks, exchange.id, caller, CALCULATOR, 0)
        exchange.remaining, exchange.is_billed = bill.reservation.remaining, True
        outcome = Outcome.FAILED
        try:
            reply = await self._desk.calculate(expression, digits)
            if reply.failure is None or reply.failure.code not in _OF_CALCULATOR:
                outcome = Outcome.ANSWERED  # also with the reason why there is no result
            return self._respond(exchange, reply)
        except CalculatorUnavailableError as error:
            raise RequestError(503, "calculator_unavailable", str(error), headers=self._later) from error
        except LEFT:
            outcome = Outcome.CANCELLED
            raise
        finally:
            await bill.settle(outcome, None)

    @property
    def _later(self) -> dict[str, str]:
        return {"Retry-After": str(self._parts.read_settings().limits.retry_after_seconds)}

    def _refuse_busy(self, message: str) -> RequestError:
        return RequestError(503, "calculator_busy", message, headers=self._later)

    def _respond(self, exchange: Exchange, reply: CalculatorReply) -> web.Response:
        if reply.calculation is not None:
            body = {"object": "calculation", "id": exchange.id, **describe_calculation(reply.calculation)}
            return web.Response(body=orjson.dumps(body), content_type="application/json")
        failure = reply.failure or CalculationFailure(FailureCode.FAILED, "the calculator gave no result; try again")
        if failure.code is FailureCode.BUSY:
            raise self._refuse_busy(failure.message)
        if failure.code in _OF_CALCULATOR:
            raise RequestError(502, "calculation_failed", failure.message)
        raise _build_error(failure.code.value, failure.message)


_OF_CALCULATOR: Final = frozenset({FailureCode.BUSY, FailureCode.FAILED, FailureCode.INVALID_REQUEST})
"""Failures that are not the expression's."""


def _check_expression(expression: str) -> None:
    """Refuse what cannot be read before anything is counted, as other malformed fields are."""
    try:
        check_sizes(parse(expression))
    except CalculatorError as error:
        raise _build_error(error.code, error.message) from error


def _build_error(code: str, message: str) -> RequestError:
    return RequestError(400, f"calculation_{code}", f"expression: {message}", param="expression")


def describe_calculation(calculation: Calculation) -> dict[str, Any]:
    """Return a result as the API writes it."""
    return {
        "expression": calculation.expression,
        "exact": calculation.exact,
        "numeric": calculation.numeric,
        "verified": calculation.verified,
        "check": calculation.check,
        "notes": list(calculation.notes),
    }
