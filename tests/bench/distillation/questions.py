"""Questions of `make bench NAME=distillation`: a part to train on, and candidates for a suite that the data must not have.

Candidates are the questions of the shipped suites, and a part of the others, by their ids: the same each time. Both
halves share forms, such as "What is the capital of ...?", and no question.
"""

import zlib
from pathlib import Path
from typing import Final

from bench.model.prompts import list_prompts, read_suite_prompts
from r1plus_contract.suites.suite import encode_items
from r1plus_model.training.suite_overlap import SuiteIndex
from r1plus_monitoring.curate.candidates import build_candidates
from r1plus_training.engine_distil import load_compared_suites

HELD_OUT_OF: Final = 4
"""One of so many questions that no shipped suite has is a candidate; the others are trained on."""


def split_questions(candidates: Path) -> list[str]:
    """Write the candidates to a file; return the prompts to train on, in an order of their own."""
    asked = read_suite_prompts()
    held_out = [item for item in build_candidates() if item.prompt in asked or is_held_out(item.id)]
    candidates.write_text(encode_items(held_out), encoding="utf-8")
    return list_prompts(SuiteIndex(load_compared_suites([candidates])))


def is_held_out(item_id: str) -> bool:
    """Whether a question that no shipped suite has is a candidate."""
    return zlib.crc32(item_id.encode()) % HELD_OUT_OF == 0
