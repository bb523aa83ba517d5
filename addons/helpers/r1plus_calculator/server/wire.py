"""Replies of requests without a result."""

from r1plus_contract.calculator import CalculationFailure, CalculatorReply, FailureCode
from r1plus_contract.jsonable import dumps


def encode_failure(code: FailureCode, message: str, position: int | None = None) -> bytes:
    """Return the reply of a request without a result."""
    return dumps(CalculatorReply(failure=CalculationFailure(code, message, position))).encode()
