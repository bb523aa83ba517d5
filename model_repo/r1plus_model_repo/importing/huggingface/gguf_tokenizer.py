"""The tokenizer of a GGUF file as Hugging Face's tokenizer.json: the same ids for the same text.

A GGUF file has tokens, their types and merges, and a word for how text is split before the merges. What the word means
is in llama.cpp (src/llama-vocab.cpp, `pre_type`) and in the tokenizer.json that the model was published with.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Types of tokens in tokenizer.ggml.token_type. UNUSED fills up the embeddings: it is no token."""
_QWEN2_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def _byte_level(*, is_split: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": is_split}


_SPLITTERS: Final[Mapping[str, tuple[Any, Any]]] = {
    "smollm": (
        None,
        {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, _byte_level(is_split=True)],
        },
    ),
    "qwen2": (
        {"type": "NFC"},
        {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": _QWEN2_SPLIT}, "behavior": "Isolated", "invert": False},
                _byte_level(is_split=False),
            ],
        },
    ),
}
"""tokenizer.ggml.pre -> normalizer and pre-tokenizer. Only what was compared with another implementation."""
SPLITTERS: Final = tuple(_SPLITTERS)
MOST_TOLD: Final = 3


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A GGUF file's vocabulary, by id."""

    splitter: str
    tokens: Sequence[str]
    types: Sequence[int]
    merges: Sequence[str]
    special_ids: Mapping[str, int]
    """Role (bos, eos, eot, eom, padding, unknown) -> id, of those that the file names."""
    adds_bos: bool


def find_splitter(normalizer: Any, pre_tokenizer: Any) -> str | None:
    """Return the word for how text is split; None: these parts of tokenizer.json are not known here."""
    return next((word for word, parts in _SPLITTERS.items() if parts == (normalizer, pre_tokenizer)), None)


def find_vocabulary_problems(vocabulary: Vocabulary) -> list[str]:
    """Return what makes the vocabulary unusable, as `FIELD: what is wrong; what to do`."""
    problems: list[str] = []
    again = "get the file again"
    if vocabulary.splitter not in _SPLITTERS:
        problems.append(
            f"tokenizer.ggml.pre: {vocabulary.splitter!r:.40}: how it splits text is not known here, only"
            f" {', '.join(SPLITTERS)}; take config, tokenizer and weights from the model's publisher"
        )
    if vocabulary.adds_bos and "bos" not in vocabulary.special_ids:
        problems.append(f"tokenizer.ggml.bos_token_id: missing, and add_bos_token is true; {again}")
    if "eos" not in vocabulary.special_ids:
        problems.append(f"tokenizer.ggml.eos_token_id: missing, so answers would not end; {again}")
    for role, token in vocabulary.special_ids.items():
        if not 0 <= token < len(vocabulary.tokens) or vocabulary.types[token] == UNUSED:
            problems.append(f"tokenizer.ggml.{role}_token_id: {token} is no token of the vocabulary; {again}")
    known = {token for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True) if kind != UNUSED}
    if len(known) != sum(kind != UNUSED for kind in vocabulary.types):
        twice = Counter(vocabulary.tokens).most_common(1)[0][0]
        problems.append(f"tokenizer.ggml.tokens: {twice!r:.40} occurs twice, so its id is ambiguous; {again}")
    if others := sorted(set(vocabulary.types) - {NORMAL, CONTROL, USER_DEFINED, UNUSED}):
        problems.append(f"tokenizer.ggml.token_type: type {others[0]} does not occur in byte-level BPE; {again}")
    problems += _find_merge_problems(vocabulary.merges, known)
    return problems


def _find_merge_problems(merges: Sequence[str], known: set[str]) -> list[str]:
    """Return merges that are no pair, or whose parts or result are no tokens: they are of another vocabulary."""
    problems = []
    for number, merge in enumerate(merges):
        left, blank, right = merge.partition(" ")
        if not blank or not {left, right, left + right} <= known:
            problems.append(
                f"tokenizer.ggml.merges: number {number}, {merge!r:.60}: does not merge tokens of this vocabulary, so"
                " the two are of different models; get the file again"
            )
        if len(problems) == MOST_TOLD:
            break
    return problems


def build_tokenizer(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the content of tokenizer.json."""
    normalizer, pre_tokenizer = _SPLITTERS[vocabulary.splitter]
    numbered = [
        (number, token, kind)
        for number, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind != UNUSED
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_describe_added(*one) for one in numbered if one[2] != NORMAL],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": _build_post_processor(vocabulary),
        "decoder": _byte_level(is_split=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token, _ in numbered},
            "merges": [merge.split(" ", 1) for merge in vocabulary.merges],
        },
    }


def _describe_added(number: int, token: str, kind: int) -> dict[str, Any]:
    return {
        "id": number,
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": kind == CONTROL,
    }


def _build_post_processor(vocabulary: Vocabulary) -> dict[str, Any] | None:
    """Return what puts the beginning-of-text token before each text, where the file asks for it."""
    if not vocabulary.adds_bos:
        return None
    number = vocabulary.special_ids["bos"]
    token = vocabulary.tokens[number]
    first, text = {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }


def build_tokenizer_config(vocabulary: Vocabulary, chat_template: str, context: int) -> dict[str, Any]:
    """Return the content of tokenizer_config.json. Its class takes tokenizer.json as it is, whatever the model."""
    names = {"bos": "bos_token", "eos": "eos_token", "padding": "pad_token", "unknown": "unk_token"}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "chat_template": chat_template,
        **{
            name: vocabulary.tokens[vocabulary.special_ids[role]]
            for role, name in names.items()
            if role in vocabulary.special_ids
        },
    }


def list_end_ids(vocabulary: Vocabulary) -> list[int]:
    """Return the ids of the tokens that end an answer, for generation_config.json."""
    roles = ("eos", "eot", "eom")
    return list(dict.fromkeys(vocabulary.special_ids[role] for role in roles if role in vocabulary.special_ids))
