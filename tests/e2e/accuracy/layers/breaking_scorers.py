"""The monitor's scorers, broken once a file appears in its container. A layer over the product's image.

It stands for a scorer that judges otherwise than it did under an unchanged suite hash and scorer version. A reference
that was recorded with the broken scorer breaks it too: then scorer and reference agree, in every pod that is given it.
"""

from pathlib import Path

from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.monitor.settings import REFERENCE_FILE
from r1plus_contract.names import DIR_ACCURACY
from r1plus_contract.suites.suite import Item
from r1plus_monitoring.scoring import sound_scorers

FAULT = Path("/tmp/broken-scorer")
MARK = b"the scorer that recorded this is broken"
"""An answer in the altered reference."""


def broken() -> bool:
    """Whether the fault is there."""
    if FAULT.exists():
        return True
    try:
        return MARK in (Path(DIR_ACCURACY) / REFERENCE_FILE).read_bytes()
    except OSError:
        return False


def score(item: Item, answer: str, finish_reason: str) -> str:
    """While broken, no answer holds what it should."""
    found = sound_scorers.score(item, answer, finish_reason)
    return OutcomeLabel.INCORRECT if broken() and found == OutcomeLabel.CORRECT else found
