"""A Hugging Face tokenizer's files: which of them are taken, and whether the GPU backends could load and use them.

What is needed was read in transformers (models/auto/tokenization_auto.py: without `tokenizer_class` the class follows
from config.json) and in `backends.hf_tokens`, which runs no code of the folder and asks for a token that ends answers.
"""

from pathlib import Path
from typing import Final

from r1plus_model_repo.importing.folder_files import (
    CONFIG,
    GENERATION_CONFIG,
    SPECIAL_TOKENS,
    TEMPLATE,
    TOKENIZER_CONFIG,
    check_links,
    check_template,
    read_json,
)
from r1plus_model_repo.importing.model import Findings

TOKENIZER: Final = "tokenizer.json"
VOCABULARIES: Final = ((TOKENIZER,), ("tokenizer.model",), ("vocab.json", "merges.txt"))
"""Any of these sets is a vocabulary."""
TAKEN: Final = (
    *(name for names in VOCABULARIES for name in names),
    TOKENIZER_CONFIG,
    SPECIAL_TOKENS,
    "added_tokens.json",
    TEMPLATE,
    GENERATION_CONFIG,
)


def tokenizer_files(source: Path, found: Findings, prefix: str = "") -> tuple[str, ...]:
    """The names of the tokenizer's files in `source`, each with `prefix` before it; what is wrong goes to `found`."""
    names = [prefix + name for name in TAKEN]
    check_links(source, names, found)
    there = tuple(name for name in names if (source / name).is_file())
    if not any(all(prefix + name in there for name in names) for names in VOCABULARIES):
        known = ", ".join(" with ".join(names) for names in VOCABULARIES)
        found.problems.append(f"{prefix}{TOKENIZER}: missing ({known} would do); get the model's tokenizer")
    if prefix + TOKENIZER in there and not read_json(source, prefix + TOKENIZER, found).get("model"):
        found.problems.append(f"{prefix}{TOKENIZER}: model: missing, so there is no vocabulary; get the file again")
    config = read_json(source, prefix + TOKENIZER_CONFIG, found)
    if prefix + TOKENIZER_CONFIG not in there:
        found.problems.append(f"{prefix}{TOKENIZER_CONFIG}: missing; get the model's tokenizer")
    else:
        check_remote_code(config.get("auto_map"), prefix + TOKENIZER_CONFIG, found)
        check_template(source, found, prefix)
    return there


def check_remote_code(auto_map: object, name: str, found: Findings) -> None:
    """`auto_map` says that the model is a program of its own, which would be run when it is loaded."""
    if auto_map:
        found.problems.append(
            f"{name}: auto_map: {auto_map!r:.80}: the model's own code is never trusted; take a model that"
            " transformers and vLLM know without, or take auto_map out where they know this one"
        )


def stands_alone(source: Path, found: Findings, prefix: str) -> tuple[str, ...]:
    """What a tokenizer needs where it is all that the runtime has: its class, and a token that ends an answer.

    Returns further files to take.
    """
    config = read_json(source, prefix + TOKENIZER_CONFIG, found)
    check_links(source, [prefix + CONFIG], found)
    beside = (prefix + CONFIG,) if (source / (prefix + CONFIG)).is_file() else ()
    if not beside and not config.get("tokenizer_class"):
        found.problems.append(
            f"{prefix}{TOKENIZER_CONFIG}: tokenizer_class: missing; add the model's {CONFIG} beside it, which says it"
        )
    if beside:
        check_remote_code(read_json(source, beside[0], found).get("auto_map"), beside[0], found)
    generation = read_json(source, prefix + GENERATION_CONFIG, found)
    special = read_json(source, prefix + SPECIAL_TOKENS, found)
    ends = (config.get("eos_token"), special.get("eos_token"), generation.get("eos_token_id"))
    if all(end is None for end in ends):
        found.problems.append(
            f"{prefix}{TOKENIZER_CONFIG}: eos_token: missing, so no answer would end; add the model's"
            f" {GENERATION_CONFIG}"
        )
    if not generation:
        found.notes.append(
            f"{prefix}{GENERATION_CONFIG}: missing: of several tokens that end an answer only the tokenizer's own is"
            " known"
        )
    return beside
