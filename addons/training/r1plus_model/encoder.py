"""A checkpoint's tokenizer and chat template, as a server applies them. Needs no torch."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from r1plus_model.errors import DistillationError

GENERATION_CONFIG: Final = "generation_config.json"


@dataclass(frozen=True, slots=True)
class Encoder:
    """A model's tokenizer and chat template. Each method that encodes raises DistillationError for a token without an
    embedding: an index beyond them would end the process."""

    tokenizer: Tokenizer
    template: str
    special: Mapping[str, str]
    """Role, such as eos_token -> the token's text."""
    vocabulary: int
    """Embeddings of the model."""
    role: str = "teacher"
    """What errors call the model."""

    def encode_text(self, text: str) -> list[int]:
        """Return the tokens of a text, with those that the tokenizer puts around it."""
        return self._check(self.tokenizer.encode(text).ids)

    def encode_dialogue(self, prompt: str, answer: str) -> tuple[list[int], list[int]]:
        """Return the tokens of the prompt in its template, and of the answer with the token that ends it.

        Raises:
            DistillationError: the template cannot be rendered, or the vocabulary has no token that ends an answer.
        """
        end = self.find_end_id()
        if end is None:
            raise DistillationError(
                f"{self.role}: tokenizer_config.json: eos_token: {self.special['eos_token']!r:.40} is no token of"
                " tokenizer.json, so answers would not end; give the model's own files"
            )
        answer_ids = self.tokenizer.encode(answer, add_special_tokens=False).ids
        return self.encode_prompt(prompt), self._check([*answer_ids, end])

    def encode_prompt(self, prompt: str, system: str = "") -> list[int]:
        """Return the tokens of a prompt in the template, up to where the answer begins.

        Raises:
            DistillationError: the template cannot be rendered.
        """
        messages = [{"role": "user", "content": prompt}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        return self.encode_messages(messages)

    def encode_messages(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the tokens of a conversation in the template, up to where the answer begins.

        Raises:
            DistillationError: the template cannot be rendered.
        """
        try:
            text = _compile(self.template).render(
                messages=list(messages), add_generation_prompt=True, tools=None, **self.special
            )
        except Exception as error:  # A program from the model's publisher: it may raise anything.
            raise DistillationError(
                f"{self.role}: its chat template cannot be rendered: {error}; correct it, or give texts without it"
            ) from error
        return self._check(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _check(self, ids: Sequence[int]) -> list[int]:
        check_embedded(ids, self.vocabulary, self.role, self.tokenizer.id_to_token)
        return list(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def find_end_id(self) -> int | None:
        """Return the token that ends an answer; None: the vocabulary does not have it."""
        token: int | None = self.tokenizer.token_to_id(self.special["eos_token"])
        return token


def check_embedded(ids: Sequence[int], vocabulary: int, role: str, name_token: Callable[[int], str | None]) -> None:
    """Raise DistillationError for a token that the model, which `role` names, has no embedding for."""
    if ids and (last := max(ids)) >= vocabulary:
        raise DistillationError(
            f"{role}: tokenizer.json: {name_token(last)!r:.40} is token {last}, and the model has {vocabulary}"
            " (vocab_size); give the model's own tokenizer, or leave this out of all texts"
        )


@cache
def _compile(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    return environment.from_string(template)


def read_encoder(folder: Path, vocabulary: int, role: str = "teacher") -> Encoder:
    """Return the tokenizer and chat template of a checkpoint whose model has so many embeddings.

    Raises:
        DistillationError: it has no tokenizer.json, no template, or no token that ends an answer.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise DistillationError(f"{role}: {path} is missing: only such tokenizers are read; get the model with it")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # The library has no type of its own for a bad file.
        raise DistillationError(f"{role}: {path} cannot be read: {error}; get the file again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    config = _read_object(folder / "tokenizer_config.json", role)
    special = {
        name: token for name in ("bos_token", "eos_token", "pad_token") if (token := _read_token(config.get(name)))
    }
    template_file = folder / "chat_template.jinja"
    template = template_file.read_text(encoding="utf-8") if template_file.is_file() else config.get("chat_template")
    if not isinstance(template, str):
        raise DistillationError(f"{role}: tokenizer_config.json: chat_template: not one text; give the model's own")
    if "eos_token" not in special:
        raise DistillationError(f"{role}: tokenizer_config.json: eos_token: missing, so answers would not end; add it")
    return Encoder(tokenizer, template, special, vocabulary, role)


def list_end_ids(folder: Path, encoder: Encoder) -> list[int]:
    """Return the tokens that end an answer of the checkpoint.

    Raises:
        DistillationError: generation_config.json cannot be read, or names none by their numbers.
    """
    path = folder / GENERATION_CONFIG
    ends = _read_object(path, encoder.role).get("eos_token_id") if path.is_file() else None
    ids = [one for one in (encoder.find_end_id(), *(ends if isinstance(ends, list) else [ends])) if one is not None]
    if wrong := [one for one in ids if type(one) is not int]:
        raise DistillationError(
            f"{encoder.role}: {path}: eos_token_id: {wrong[0]!r:.40} is not the number of a token; get the file again"
        )
    return sorted(set(ids))


def _read_object(path: Path, role: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DistillationError(f"{role}: {path}: cannot be read: {error}; get the file again") from error
    if not isinstance(content, dict):
        raise DistillationError(f"{role}: {path}: not a JSON object; get the file again")
    return content


def _read_token(value: object) -> str | None:
    """Return the text of a special token, which may be an object."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None
