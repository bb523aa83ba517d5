"""llm-comply: the specifications of chat completions (OpenAI's) and of Open Responses, case by case."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, Final

from conformance.environments import prepare
from conformance.results import Result

TIMEOUT_SECONDS: Final = 300
CHAT, RESPONSES = "openai-chat", "open-responses"
NO_ENDPOINT: Final = "expected object containing 'compact', got ''"
"""What llm-comply says, as advice, of a server without `/v1/responses/compact`."""
NO_IMAGES: Final = "the models read text only; the gateway refuses images with 400 and names the part"
NO_REASONING: Final = "the models have no reasoning of their own; the gateway refuses {} with 400"
NO_COMPACTION: Final = "no model here compacts a conversation into what only its server reads; the gateway answers 404"
NOT_APPLICABLE: Final[Mapping[str, tuple[str, str]]] = {
    "chat-image-input": (NO_IMAGES, "HTTP 400"),
    "chat-reasoning-summary": (NO_REASONING.format("reasoning_effort"), "HTTP 400"),
    "image-input": (NO_IMAGES, "HTTP 400"),
    "reasoning-summary": (NO_REASONING.format("reasoning"), "HTTP 400"),
    "compact-response": (NO_COMPACTION, NO_ENDPOINT),
}
"""Cases that the gateway refuses by design -> why, and what llm-comply then says."""


def run_comply(kind: str, url: str, key: str) -> Iterator[Result]:
    """Run the cases of one API. What is not applicable must be refused as the reason says, else it has failed."""
    for case in _run(kind, url, key):
        yield _judge(case, *NOT_APPLICABLE.get(case["id"], ("", "")))


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
    # Its advice counts as well: a field that OpenAI always sends, a prefix that it always gives.
    problems = [*case.get("errors", []), *case.get("warnings", [])]
    if not reason:
        return Result(case["id"], problem="; ".join(problems))
    # It skips some cases itself.
    if case["status"] == "skipped" or any(problem.startswith(refusal) for problem in problems):
        return Result(case["id"], reason=reason)
    return Result(case["id"], problem=f"expected {refusal}, got {problems or case['status']}")
