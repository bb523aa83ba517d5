"""The cases of one client. Run by the interpreter of another environment, which has the client and nothing of ours.

Each case prints a line of JSON. The model behind the gateway is a small one: cases look at the form of an answer, never
at what it says.
"""

import json
import os
import traceback
from collections.abc import Callable
from typing import Any

URL = f"{os.environ['GATEWAY']}/v1"
KEYS: dict[str, str] = json.loads(os.environ["KEYS"])
CASES: list[Callable[[], None]] = []


def case(function: Callable[[], None]) -> Callable[[], None]:
    """Add a case."""
    CASES.append(function)
    return function


def expect(kind: type[BaseException], call: Callable[[], Any]) -> Any:
    """Return the error of this class that the call raises."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")


def run_cases() -> None:
    """Run all; a failure's problem is what was raised, and the last line of the client's script that led to it."""
    for function in CASES:
        problem = ""
        try:
            function()
        except Exception as error:  # noqa: BLE001 - the next case runs
            script = function.__code__.co_filename
            own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == script]
            problem = f"{type(error).__name__}: {error} (line {own[-1].lineno}: {own[-1].line})"
        print(json.dumps({"case": function.__name__.replace("_", " "), "problem": problem}), flush=True)
