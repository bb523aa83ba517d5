"""The one file of the gateway that imports add-ons. One that is not installed is left out."""

import logging
from typing import Final

from r1plus_contract.addons import explain_missing_addon
from r1plus_gateway.http.add_ons import AddOnRunner, run_without_add_on

log = logging.getLogger(__name__)
ASSISTANT: Final = "assistant"
ASSISTANT_PACKAGES: Final = frozenset({"r1plus_assistant", "numpy", "simsimd"})
"""The add-on's package, and what its extra installs: without one of these it is not installed."""


def find_add_on() -> AddOnRunner:
    """Return the assistant with the helpers that the environment names; without that add-on, nothing.

    Raises:
        ModuleNotFoundError: another module is missing: a damaged add-on is no absent one.
    """
    try:
        from r1plus_assistant.environment import read_assistant
    except ModuleNotFoundError as error:
        if error.name not in ASSISTANT_PACKAGES:
            raise
        log.warning("Add-on left out: %s", explain_missing_addon("every endpoint but completions", ASSISTANT))
        return run_without_add_on
    return read_assistant().run
