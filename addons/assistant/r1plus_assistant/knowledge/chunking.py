"""Chunking: a document's blocks become chunks that each stay under one heading and on one page, with their offsets."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from r1plus_contract.documents import TextBlock
from r1plus_gateway.store.content.knowledge import Chunk

RELEASE: Final = 3
"""Of the rules: with other ones a document that was read in part is read again."""
CHARACTERS_PER_TOKEN: Final = 4
"""About, of English; a chunk of another language has more tokens."""
AUTO_TOKENS: Final = 220
"""A chunk that the embedding engine reads to its end: 256 tokens."""
AUTO_OVERLAP: Final = 40
LEAST_TOKENS: Final = 100
MOST_TOKENS: Final = 4096
SEPARATOR: Final = "\n\n"
"""Between two blocks, where offsets count."""
MOST_HEADING: Final = 240
_PARAGRAPH: Final = re.compile(r"\n\n")
_SENTENCE: Final = re.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+|(?<=[。！？])|\n")
_WORD: Final = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class ChunkSize:
    """How large chunks are, and how much of one the next repeats."""

    tokens: int = AUTO_TOKENS
    overlap: int = AUTO_OVERLAP

    @property
    def characters(self) -> int:
        """Of a chunk, at most."""
        return self.tokens * CHARACTERS_PER_TOKEN

    @property
    def overlap_characters(self) -> int:
        """Of the chunk before, about."""
        return self.overlap * CHARACTERS_PER_TOKEN


class Chunker:
    """Cuts one document. The same blocks give the same chunks, whenever they come."""

    def __init__(self, size: ChunkSize) -> None:
        self._size = size
        self._offset = 0
        """Characters of all blocks before, with their separators."""
        self._headings: list[tuple[int, str]] = []
        self._is_heading_used = True
        self._heading_offset = 0
        self._text = ""
        self._start = 0
        self._page: int | None = None
        self._fresh = 0
        """Characters at the end of `_text` that no chunk has yet."""

    def add(self, block: TextBlock) -> Iterator[Chunk]:
        """Take the next block; yield the chunks that are complete."""
        start, self._offset = self._offset, self._offset + len(block.text) + len(SEPARATOR)
        if block.level:
            yield from self._end_section()
            if not self._is_heading_used and self._headings and block.level <= self._headings[-1][0]:
                yield from self._cut_heading()
            self._headings = [one for one in self._headings if one[0] < block.level] + [(block.level, block.text)]
            self._is_heading_used, self._heading_offset, self._page = False, start, block.page
            return
        if block.page != self._page or not self._text:
            yield from self._end_section()
            self._page, self._start = block.page, start
            self._text = block.text
            self._fresh = len(block.text)
        else:
            self._text += SEPARATOR + block.text
            self._fresh += len(SEPARATOR) + len(block.text)
        self._is_heading_used = True
        yield from self._cut_to_size()

    def finish(self) -> Iterator[Chunk]:
        """Yield what is left."""
        yield from self._end_section()
        if not self._is_heading_used:
            yield from self._cut_heading()

    def _end_section(self) -> Iterator[Chunk]:
        if self._fresh and self._text.strip():
            yield self._make_chunk(len(self._text))
        self._text, self._fresh = "", 0

    def _cut_to_size(self) -> Iterator[Chunk]:
        while len(self._text) > self._size.characters:
            chunk = self._cut()
            if chunk.text:
                yield chunk

    def _cut_heading(self) -> Iterator[Chunk]:
        """Yield a heading that has no text below it."""
        self._text, self._start = self._headings[-1][1], self._heading_offset
        self._fresh = len(self._text)
        yield from self._cut_to_size()
        yield from self._end_section()

    def _cut(self) -> Chunk:
        """Return a chunk from the beginning; what follows begins with its end."""
        most = self._size.characters
        end = _find_end(self._text, most // 2, most)
        chunk = self._make_chunk(end)
        begin = _find_begin(self._text, max(1, end // 2, end - self._size.overlap_characters), end)
        self._fresh = len(self._text) - end
        self._text, self._start = self._text[begin:], self._start + begin
        return chunk

    def _make_chunk(self, end: int) -> Chunk:
        text = self._text[:end]
        clean = text.strip()
        start = self._start + len(text) - len(text.lstrip())
        return Chunk(clean, start, start + len(clean), self._page, self._describe_heading())

    def _describe_heading(self) -> str:
        path = " > ".join(" ".join(text.split()) for _, text in self._headings)
        return path if len(path) <= MOST_HEADING else f"{path[: MOST_HEADING - 1]}…"


def _find_end(text: str, least: int, most: int) -> int:
    """Return where a chunk ends best: behind a paragraph, a sentence, or a word."""
    for pattern in (_PARAGRAPH, _SENTENCE, _WORD):
        ends = [found.end() for found in pattern.finditer(text, least, most)]
        if ends:
            return ends[-1]
    return most


def _find_begin(text: str, least: int, most: int) -> int:
    """Return where the next chunk begins: at a sentence or a word of what the one before ends with."""
    for pattern in (_SENTENCE, _WORD):
        if (found := pattern.search(text, least, most)) and found.end() < most:
            return found.end()
    return most


def describe_passage(chunk: Chunk) -> str:
    """Return what of a chunk is searched: its text, below its headings."""
    return f"{chunk.heading}\n{chunk.text}" if chunk.heading else chunk.text
