"""The files of a Hugging Face tokenizer: which are copied, and whether the GPU backends can load and use them.

The requirements come from transformers (models/auto/tokenization_auto.py: without `tokenizer_class` the class follows
from config.json) and from `backends.text`, which runs no code of the folder and needs a token that ends answers.
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
from r1plus_model_repo.importing.model import ImportFindings

TOKENIZER: Final = "tokenizer.json"
VOCABULARIES: Final = ((TOKENIZER,), ("tokenizer.model",), ("vocab.json", "merges.txt"))
"""Each of these sets of files is a vocabulary."""
COPIED_FILES: Final = (
    *(name for names in VOCABULARIES for name in names),
    TOKENIZER_CONFIG,
    SPECIAL_TOKENS,
    "added_tokens.json",
    TEMPLATE,
    GENERATION_CONFIG,
)


def list_tokenizer_files(source: Path, findings: ImportFindings, prefix: str = "") -> tuple[str, ...]:
    """Return the tokenizer's files in `source`, each with `prefix`. Problems are added to `findings`."""
    names = [prefix + name for name in COPIED_FILES]
    check_links(source, names, findings)
    present = tuple(name for name in names if (source / name).is_file())
    if not any(all(prefix + name in present for name in names) for names in VOCABULARIES):
        alternatives = ", ".join(" with ".join(names) for names in VOCABULARIES)
        findings.problems.append(
            f"{prefix}{TOKENIZER}: missing (one of {alternatives} is needed); get the model's tokenizer"
        )
    if prefix + TOKENIZER in present and not read_json(source, prefix + TOKENIZER, findings).get("model"):
        findings.problems.append(f"{prefix}{TOKENIZER}: model: missing, so there is no vocabulary; get the file again")
    config = read_json(source, prefix + TOKENIZER_CONFIG, findings)
    if prefix + TOKENIZER_CONFIG not in present:
        findings.problems.append(f"{prefix}{TOKENIZER_CONFIG}: missing; get the model's tokenizer")
    else:
        check_remote_code(config.get("auto_map"), prefix + TOKENIZER_CONFIG, findings)
        check_template(source, findings, prefix)
    return present


def check_remote_code(auto_map: object, name: str, findings: ImportFindings) -> None:
    """Reject `auto_map`: it names the model's own code, which would run when the model is loaded."""
    if auto_map:
        findings.problems.append(
            f"{name}: auto_map: {auto_map!r:.80}: the model's own code is never trusted; use a model that"
            " transformers and vLLM support without it, or remove auto_map if they support this one"
        )


def check_tokenizer_without_model(source: Path, findings: ImportFindings, prefix: str) -> tuple[str, ...]:
    """Check a tokenizer that the runtime loads without the model: it needs a class and a token that ends answers.

    Returns further files to copy.
    """
    config = read_json(source, prefix + TOKENIZER_CONFIG, findings)
    check_links(source, [prefix + CONFIG], findings)
    config_files = (prefix + CONFIG,) if (source / (prefix + CONFIG)).is_file() else ()
    if not config_files and not config.get("tokenizer_class"):
        findings.problems.append(
            f"{prefix}{TOKENIZER_CONFIG}: tokenizer_class: missing; add the model's {CONFIG}, which has it"
        )
    if config_files:
        check_remote_code(read_json(source, config_files[0], findings).get("auto_map"), config_files[0], findings)
    generation = read_json(source, prefix + GENERATION_CONFIG, findings)
    special = read_json(source, prefix + SPECIAL_TOKENS, findings)
    end_tokens = (config.get("eos_token"), special.get("eos_token"), generation.get("eos_token_id"))
    if all(end is None for end in end_tokens):
        findings.problems.append(
            f"{prefix}{TOKENIZER_CONFIG}: eos_token: missing, so answers would not end; add the model's"
            f" {GENERATION_CONFIG}"
        )
    if not generation:
        findings.notes.append(
            f"{prefix}{GENERATION_CONFIG}: missing: if several tokens end an answer, only the tokenizer's own is known"
        )
    return config_files
