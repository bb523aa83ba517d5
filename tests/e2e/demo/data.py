"""Step 6 of the demo: what the tenant's gateway keeps and computes, as a person would try it."""

import json
import sys
from typing import Final

from e2e import gateways, story
from e2e.demo.scenes import build_environment, run_command, show_lines
from e2e.demo.telling import Teller
from e2e.gateways import ApiKey
from e2e.story import Name
from e2e.target import Target
from e2e.waiting import StoryError

CONVERSE_SCRIPT: Final = story.EXAMPLES / "converse.py"
FACT: Final = "4711"
"""Of the conversation's first turn, which its last question is on."""
INTEGRAL: Final = """\
curl -sS "$OPENAI_BASE_URL/calculate" -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -H "Content-Type: application/json" -d '{"expression": "integrate(1/(2+cos(x)), x, 0, 2*pi)"}'
"""
RESULT: Final = "2*sqrt(3)*pi/3"


def use_data(target: Target, full: Name, key: ApiKey, teller: Teller) -> None:
    """Hold a conversation that is longer than its prompts, and have an integral computed."""
    with gateways.reach(target, full.namespace) as url:
        environment = build_environment(url, key)
        script = CONVERSE_SCRIPT.relative_to(story.EXAMPLES.parent)
        teller.line(f"Eight turns, the last prompt with room for 96 tokens of those before: .venv/bin/python {script}")
        said = run_command(environment, sys.executable, str(CONVERSE_SCRIPT))
        show_lines(said, teller)
        *_, answer, _ = said.strip().splitlines()
        if FACT not in answer:
            raise StoryError(f"the conversation does not recall {FACT} of its first turn: {answer}")
        teller.line("An integral, exact and checked by a second method:")
        show_lines(INTEGRAL, teller)
        printed = run_command(environment, "bash", "-c", INTEGRAL)
        show_lines(printed, teller, ">>> ")
        found = json.loads(printed)
        if (found.get("exact"), found.get("verified")) != (RESULT, True):
            raise StoryError(f"the integral is not {RESULT}: {printed}")
