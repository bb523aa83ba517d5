"""Numbers of a checkpoint's configuration that a runtime takes unchecked: it would compute nonsense, or not start.

Read by vllm and by transformers: config.json (models/*/configuration_*.py, modeling_rope_utils.py) and
generation_config.json, whose tokens end an answer (generation/configuration_utils.py).
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from r1plus_contract.engine.llama_architecture import POSITION_FIELDS, is_positive
from r1plus_model_repo.importing.folder_files import GENERATION_CONFIG, Values, read_json
from r1plus_model_repo.importing.model import ImportFindings

_POSITIVE: Final = ("rope_theta", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "factor")
_SHARES: Final = ("partial_rotary_factor", "rotary_pct")
_END: Final = "eos_token_id"
_TOKENS: Final = (_END, "bos_token_id", "pad_token_id")


def check_numbers(config: Values) -> None:
    """Check the numbers of config.json by which positions and norms are computed. A model may have one per layer."""
    for section in _list_sections(config):
        for key in (*_POSITIVE, *_SHARES):
            for value in _list_values(section.fields.get(key)):
                if not is_positive(value):
                    section.add_problem(key, f"{value!r:.40} is not a positive number")
                elif key in _SHARES and value > 1:
                    section.add_problem(key, f"{value!r:.40} is more than 1: it is a share of the numbers of a head")


def _list_sections(config: Values) -> Iterator[Values]:
    """Yield config.json, its sections on positions, and their parts: newer models have one for each kind of layer."""
    yield config
    for name in POSITION_FIELDS:
        if isinstance(config.fields.get(name), Mapping):
            section = config.get_object(name)
            yield section
            yield from (section.get_object(key) for key, value in section.fields.items() if isinstance(value, Mapping))


def check_token_ids(source: Path, config: Values, findings: ImportFindings, prefix: str = "") -> None:
    """Check the numbers of special tokens in config.json and generation_config.json; `prefix` is of the latter."""
    name = prefix + GENERATION_CONFIG
    vocabulary = config.fields.get("vocab_size")
    end = vocabulary if type(vocabulary) is int else math.inf
    for section in (config, Values(read_json(source, name, findings), name, findings)):
        for key in _TOKENS:
            # Old checkpoints write -1 for a token that they do not have.
            least, most = (0, end) if key == _END else (-1, math.inf)
            for value in _list_values(section.fields.get(key)):
                if type(value) is not int or not least <= value < most:
                    of = f" of the {end} tokens" if key == _END and end != math.inf else ""
                    section.add_problem(key, f"{value!r:.40} is not the number of a token{of}")


def _list_values(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
