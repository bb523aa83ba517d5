"""llm-comply: OpenAI's specification of chat completions, case by case, and what it has for Responses."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, Final

from conformance.environments import prepare
from conformance.results import Result

TIMEOUT_SECONDS: Final = 300
CHAT, RESPONSES = "openai-chat", "open-responses"
NOT_APPLICABLE: Final[Mapping[str, str]] = {
    "chat-image-input": "the models read text only; the gateway refuses images with 400 and names the part",
    "chat-reasoning-summary": "the models have no reasoning of their own; the gateway refuses reasoning_effort with 400",
}
"""Cases of chat that the gateway refuses by design."""
NO_RESPONSES: Final = "the Responses API is not built yet; the gateway answers 404 to /v1/responses"


def run_comply(kind: str, url: str, key: str) -> Iterator[Result]:
    """Run the cases of one API. What is not applicable must be refused as the reason says, else it has failed."""
    for case in _run(kind, url, key):
        if kind == CHAT:
            yield _judge(case, NOT_APPLICABLE.get(case["id"], ""), "HTTP 400")
        else:
            yield _judge(case, NO_RESPONSES, "HTTP 404")


def _run(kind: str, url: str, key: str) -> list[dict[str, Any]]:
    # The key goes through the environment: a command line is for all to see.
    environ = {**os.environ, "OPENRESPONSES_API_KEY": key}
    command = [prepare("llm-comply") / "llm-comply", "--format", kind, "--json", "-u", f"{url}/v1", "-m", "credit"]
    command += ["--timeout", str(TIMEOUT_SECONDS)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20 * TIMEOUT_SECONDS)
    try:
        cases: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    except (ValueError, KeyError):
        raise RuntimeError(f"llm-comply printed no results: {done.stdout[-500:]}{done.stderr[-500:]}") from None
    return cases


def _judge(case: Mapping[str, Any], reason: str, refusal: str) -> Result:
    errors = case.get("errors", [])
    if not reason:
        # Its advice counts as well: a field that OpenAI always sends, a prefix that it always gives.
        return Result(case["id"], problem="; ".join([*errors, *case.get("warnings", [])]))
    is_refused = case["status"] == "failed" and any(error.startswith(refusal) for error in errors)
    # It skips some cases itself, and two of Responses take a 404 for an answer.
    if is_refused or case["status"] == "skipped" or (reason == NO_RESPONSES and case["status"] == "passed"):
        return Result(case["id"], reason=reason)
    return Result(case["id"], problem=f"expected {refusal}, got {errors or case['status']}")
