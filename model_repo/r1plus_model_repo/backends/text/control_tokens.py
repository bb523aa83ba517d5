"""Control tokens that clients write as text: `<|im_end|>` in a message must not end that message.

A tokenizer turns such a string into its control token wherever it stands. The chat template needs that for what it
writes itself, so both are told apart before: a mark goes into each such string of a client, the template is applied,
and the text is cut at the marks. No piece then has a whole control string of a client, so each is tokenised as it is.
A prompt without such strings is tokenised in one piece, as it always was.
"""

import secrets
from collections.abc import Iterable
from typing import Final

from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError

SHORTEST: Final = 2
"""Characters of a string that can be cut."""
MOST_CUTS: Final = 200
"""Most control strings in the texts of one request: each costs a call of the tokenizer."""


class ControlTokens:
    """The strings that a tokenizer turns into control tokens."""

    def __init__(self, strings: Iterable[str]) -> None:
        # Words and white space of a vocabulary are no control tokens, though a tokenizer may list them with those.
        self._strings = tuple(sorted({text for text in strings if len(text) >= SHORTEST and not text.isspace()}))

    def mark(self, request: GenerationRequest) -> tuple[list[dict[str, str]], str]:
        """Return the conversation with a mark in each control string of its contents, and the mark; empty without one.

        Raise RefusedError if there are too many.
        """
        conversation = request.conversation
        pieces = [self._split_control_strings(message["content"]) for message in conversation]
        cuts = sum(len(parts) - 1 for parts in pieces)
        if cuts > MOST_CUTS:
            raise RefusedError(
                f"{request.prompt_input}: has {cuts} of the strings that the engine's chat template uses for control,"
                f" more than {MOST_CUTS}; remove them"
            )
        if not cuts:
            return conversation, ""
        mark = secrets.token_hex(16)  # 128 random bits: no client can have it in its text.
        marked = [{**message, "content": mark.join(parts)} for message, parts in zip(conversation, pieces, strict=True)]
        return marked, mark

    def _split_control_strings(self, content: str) -> list[str]:
        """Cut a text within each control string, until no piece has one."""
        pieces = [content]
        for string in self._strings:
            # Cut behind the first character: a string that begins earlier is cut as well, or was.
            pieces = [part for piece in pieces for part in _cut_at(piece, string)]
        return pieces


def _cut_at(text: str, string: str) -> list[str]:
    """Cut a text behind the first character of each place where the string begins, also where they overlap."""
    parts: list[str] = []
    begin = 0
    while (at := text.find(string, begin)) >= 0:
        parts.append(text[begin : at + 1])
        begin = at + 1
    return [*parts, text[begin:]]
