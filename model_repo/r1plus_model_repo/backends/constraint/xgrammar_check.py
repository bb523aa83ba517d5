"""A check that xgrammar can read a constraint, before vLLM or TensorRT-LLM compiles it in the engine's own thread.

Both bring xgrammar and compile with it. One that failed there would end all running requests (vllm issues 17248 and
17313; TensorRT-LLM compiles in its executor's step, guidedDecoder.cpp). The backend torch compiles before it adds a
request. Checked against xgrammar 0.1.25 to 0.2.8.
"""

import json
from typing import Any

from r1plus_model_repo.backends.constraint.constraints import Constraint
from r1plus_model_repo.backends.requests import RefusedError


def import_xgrammar() -> Any:
    """Return the library, imported when a constraint needs it: an image without it serves all other requests.

    Raises:
        ImportError: it is not there.
    """
    import xgrammar

    return xgrammar


def check_constraint(constraint: Constraint) -> None:
    """Raise RefusedError if xgrammar cannot read the schema or the grammar."""
    try:
        xgrammar = import_xgrammar()
        if constraint.is_schema:
            xgrammar.Grammar.from_json_schema(json.loads(constraint.text))
        else:
            xgrammar.Grammar.from_ebnf(constraint.text)
    except Exception as error:  # ImportError, or one of the kinds that its bindings raise
        raise RefusedError(explain_failure(constraint, error)) from error


def explain_failure(constraint: Constraint, error: Exception) -> str:
    """Return why a constraint cannot be compiled, for its client."""
    what = "schema" if constraint.is_schema else "grammar"
    return f"{constraint.name}: the engine cannot compile the {what}: {' '.join(str(error).split())[-300:]}"
