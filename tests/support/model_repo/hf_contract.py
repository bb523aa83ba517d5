"""The contract of all backends for engines with a Hugging Face tokenizer: SmolLM2's, with one chat template at a time."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from r1plus_model_repo.backends.text.hf_tokens import HfTokens
from support.model_repo.engine_contract import ContractSubject
from support.model_repo.smollm2_templates import NO_SYSTEM, TEMPLATES

TOKENIZER_FILES: Final = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def open_tokens(checkpoint: Path, template: str, folder: Path, context: int) -> HfTokens:
    """Return the checkpoint's tokenizer with a chat template of `TEMPLATES`; its files are written to `folder`."""
    for name in TOKENIZER_FILES:
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    if text := TEMPLATES[template]:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "chat_template": text}), "utf-8")
    return HfTokens(folder, context)


@contextmanager
def exchange_tokens(engine: Any, tokens: HfTokens, context: int, test: str) -> Iterator[ContractSubject]:
    """Let an engine use this tokenizer for the block; `test` names the template of `tokens`."""
    own, engine._tokens = engine._tokens, tokens
    yield ContractSubject(
        engine,
        list,
        {"<|im_start|>": 1, "<|im_end|>": 2},
        lambda ids: str(tokens.library_tokenizer.decode(ids, skip_special_tokens=False)),
        context,
        takes_system=NO_SYSTEM not in test,
    )
    engine._tokens = own
