"""`POST /v1/calculate`: one expression, its exact and numeric value, and whether a second method confirmed it."""

from typing import Any, Final

import orjson
from aiohttp import web

from r1plus_assistant.calculation.client import CalculatorUnavailableError
from r1plus_assistant.calculation.desk import CalculatorDesk, CallerBusyError
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
from r1plus_gateway.access.caller import AccessError, CallerKind
from r1plus_gateway.http.accounting.admission import Holds
from r1plus_gateway.http.accounting.bill import reservation
from r1plus_gateway.http.accounting.refusals import convert_refusals
from r1plus_gateway.http.body.bodies import BodyBudget
from r1plus_gateway.http.body.field_tables import IntegerField, StringField, Table
from r1plus_gateway.http.completions.math_fields import NOT_CONFIGURED
from r1plus_gateway.http.errors import NotConfiguredError, RequestError
from r1plus_gateway.http.operations import Operation
from r1plus_gateway.http.parts import GatewayParts, authenticate
from r1plus_gateway.http.request_keys import MODEL_NAME, REQUEST_ID

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

    def list_operations(self) -> list[Operation]:
        """Return the endpoint."""
        return [
            Operation(
                "POST",
                "/v1/calculate",
                "Calculate an expression: exactly, numerically, and checked by a second method.",
                self.answer,
                "Calculation",
                body=CALCULATE,
                errors=(502,),
            )
        ]

    async def answer(self, http: web.Request) -> web.Response:
        """Answer one request.

        Raises:
            RequestError: it is refused, or there is no result.
        """
        with convert_refusals(self._parts, self._holds, http, "expression"):
            return await self._answer(http)

    async def _answer(self, http: web.Request) -> web.Response:
        caller = await authenticate(self._parts, http)
        if caller.kind is CallerKind.ADMIN:
            raise AccessError(403, "admin_not_allowed", ADMINISTERS_ONLY)
        self._holds.check(caller)
        http[MODEL_NAME] = CALCULATOR
        limits = self._parts.read_settings().limits
        async with self._bodies.read(http, caller, limits) as body:
            expression = EXPRESSION.read(body.fields)
            digits = DIGITS.read(body.fields) or DEFAULT_DIGITS
            CALCULATE.refuse_rest(body.fields)
        if not self._desk.is_configured:
            raise NotConfiguredError("calculator_not_configured", NOT_CONFIGURED)
        _check_expression(expression)
        try:
            with self._desk.take_place(caller.group_id):
                async with reservation(self._parts, http, caller, CALCULATOR, 0):
                    reply = await self._ask(expression, digits)
        except CallerBusyError as error:
            raise self._refuse_busy(str(error)) from error
        return _respond(http[REQUEST_ID], reply)

    async def _ask(self, expression: str, digits: int) -> CalculatorReply:
        """Return the calculator's reply: a result, or why the expression has none.

        Raises:
            RequestError: the calculator is busy, or has failed.
        """
        try:
            reply = await self._desk.calculate(expression, digits)
        except CalculatorUnavailableError as error:
            raise RequestError(503, "calculator_unavailable", str(error), headers=self._later) from error
        failure = _find_failure(reply)
        if failure is not None and failure.code is FailureCode.BUSY:
            raise self._refuse_busy(failure.message)
        if failure is not None and failure.code in _OF_CALCULATOR:
            raise RequestError(502, "calculation_failed", failure.message)
        return reply

    @property
    def _later(self) -> dict[str, str]:
        return {"Retry-After": str(self._parts.read_settings().limits.retry_after_seconds)}

    def _refuse_busy(self, message: str) -> RequestError:
        return RequestError(503, "calculator_busy", message, headers=self._later)


_OF_CALCULATOR: Final = frozenset({FailureCode.BUSY, FailureCode.FAILED, FailureCode.INVALID_REQUEST})
"""Failures that are not the expression's."""


def _find_failure(reply: CalculatorReply) -> CalculationFailure | None:
    """Return why there is no result; None: there is one."""
    if reply.calculation is not None:
        return None
    return reply.failure or CalculationFailure(FailureCode.FAILED, "the calculator gave no result; try again")


def _respond(request_id: str, reply: CalculatorReply) -> web.Response:
    if reply.calculation is None:
        assert reply.failure is not None
        raise _build_error(reply.failure.code.value, reply.failure.message)
    body = {"object": "calculation", "id": request_id, **describe_calculation(reply.calculation)}
    return web.Response(body=orjson.dumps(body), content_type="application/json")


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
