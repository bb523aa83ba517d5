"""An engine of a tiny random Llama, and a golden suite of what it answers."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gguf

from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.suites.suite import Item, SuiteSampling
from r1plus_model_repo.importing.engine import import_engine
from r1plus_model_repo.importing.model import Claims
from r1plus_model_repo.importing.options import ImportOptions
from r1plus_monitoring.curate import record
from r1plus_monitoring.curate.asking import F32, AskingCondition, ProcessAsker
from r1plus_monitoring.scoring.scorers import normalise, score
from support.model_repo import tiny_gguf

NAME: Final = "bank-edge"
SUITE: Final = "bank-edge-v1"
SAMPLING: Final = SuiteSampling(max_new_tokens=12)
PROMPTS: Final = 80
ITEMS: Final = 20


@dataclass(frozen=True, slots=True)
class TinyEngine:
    """Its folder, the GGUF file that it was made of, and the folder of its suite."""

    folder: Path
    weights: Path
    suite: Path


def make_tiny_engine(root: Path, architecture: str = "llama") -> TinyEngine:
    """Import the engine and build the suite below `root`."""
    weights = write_weights(root / "tiny.gguf", architecture)
    options = ImportOptions(NAME, "edge", "bank", suite=SUITE)
    folder = import_engine(weights, root / "engines", options, Claims(), lambda _: None).folder
    items = choose_items(folder / "engine")
    header = record.build_header(SUITE, "edge", "What it says.", NAME, SAMPLING, items, "bank")
    record.write_suite(root / SUITE, header, items)
    return TinyEngine(folder, weights, root / SUITE)


def write_weights(path: Path, architecture: str = "llama", sign: int = 1) -> Path:
    """Write the GGUF file, in F16; with the sign -1 of a model that answers otherwise.

    It says ASCII alone: libraries write bytes that are no text in different ways.
    """
    model = tiny_gguf.make_model(architecture)
    model.keys["general.file_type"] = (int(gguf.LlamaFileType.MOSTLY_F16), tiny_gguf.KIND.UINT32, None)
    model.weights["blk.1.ffn_up.weight"] *= sign
    for number, token in enumerate(tiny_gguf.TOKENS):
        if not token.isascii() or token in (*tiny_gguf.SPECIAL, "<tool>", "[PAD]"):
            model.weights["token_embd.weight"][number] = 0
    return tiny_gguf.write_model(path, model, kind=gguf.GGMLQuantizationType.F16)


def choose_items(files: Path) -> tuple[Item, ...]:
    """Return questions, each with a word of the engine's answer as the right one."""
    questions = tuple(
        Item(f"q-{number:03}", f"kind-{number % 2}", f"hello {number} world", "contains", ("-",))
        for number in range(PROMPTS)
    )
    answers = ProcessAsker(files, SAMPLING).ask(questions, AskingCondition(16, 0, F32))
    items = []
    for question in questions:
        answer = answers[question.id]
        for word in re.findall(r"[a-z0-9]+", normalise(answer.text)):
            item = Item(question.id, question.stratum, question.prompt, "contains", (word,))
            if score(item, answer.text, answer.finish_reason) == OutcomeLabel.CORRECT:
                items.append(item)
                break
    assert len(items) >= ITEMS, f"{len(items)} of {PROMPTS} answers have a word"
    return tuple(items)
