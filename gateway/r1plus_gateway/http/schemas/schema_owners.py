"""Whose share of an engine's memory a compiled schema takes: the caller's, or the gateway's own."""

from typing import Final

from r1plus_contract.inference import CALLER_PREFIX, GATEWAY_OWNER
from r1plus_gateway.http.schemas.schemas import ANY_OBJECT
from r1plus_gateway.http.schemas.tools import CODE_SCHEMAS
from r1plus_gateway.serving.triton_wire import Prompt

_OWN_SCHEMAS: Final = frozenset({ANY_OBJECT.text, *CODE_SCHEMAS})


def choose_schema_owner(prompt: Prompt, caller: str) -> str:
    """Return the owner of a prompt's schema: the gateway for its grammars and for schemas that are always the same."""
    is_own = prompt.grammar is not None or prompt.response_schema in _OWN_SCHEMAS
    return GATEWAY_OWNER if is_own else CALLER_PREFIX + caller
