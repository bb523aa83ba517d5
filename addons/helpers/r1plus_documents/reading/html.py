"""HTML: what a reader sees of it. Scripts, styles and what is hidden are no text; nothing is loaded."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import lxml.etree

from r1plus_contract.documents import DocumentFailureCode, TextBlock
from r1plus_documents.reading.errors import ReadingError, refuse_damaged
from r1plus_documents.reading.text import decode_text

_CHARSET: Final = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_LOOKED_AT: Final = 4096
_SILENT: Final = frozenset({"script", "style", "noscript", "template", "iframe", "object", "svg", "head", "select"})
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_BLOCKS: Final = frozenset(
    """
    address article aside blockquote body dd details div dl dt fieldset figcaption figure footer form header hr html li
    main nav ol p pre section summary table tbody td tfoot th thead tr ul
    """.split()  # noqa: SIM905 - a list of words, one a line, is hard to read
)
_UNSEEN: Final = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse))\b", re.IGNORECASE)
"""In an element's own style. What style sheets hide is not known here."""
_SPACE: Final = re.compile(r"[^\S\n]+")
_PIECE: Final = 65_536
"""Characters that the parser gets at once: what `_Writer` refuses ends it behind a piece, not before."""
_DEEPEST: Final = 200
"""Elements around a block of its own; what is deeper goes on in one block."""
_MOST_DEPTH: Final = 2048
"""Elements within each other: an end tag looks through all that are open."""
_CUT: Final = (lxml.etree.ErrorTypes.ERR_RESOURCE_LIMIT, lxml.etree.ErrorTypes.ERR_NO_MEMORY)
"""Errors behind which the parser has dropped the rest of a document, and says nothing else."""


def read_html(data: bytes) -> Iterator[TextBlock]:
    """Yield headings and paragraphs of an HTML document."""
    declared = _CHARSET.search(data[:_LOOKED_AT])
    text = decode_text(data, declared[1].decode().lower() if declared else "utf-8")
    # No tree is made: libxml2 appends an attribute to one by a walk along all that the element has. Without
    # `huge_tree` a paragraph of 10 MB ends the document.
    parser = lxml.etree.HTMLParser(encoding="utf-8", huge_tree=True, target=_Writer())
    try:
        for start in range(0, len(text), _PIECE):
            parser.feed(text[start : start + _PIECE].encode())
        blocks: list[TextBlock] = parser.close()
    except (lxml.etree.LxmlError, ValueError) as error:
        _refuse_cut(parser)
        raise refuse_damaged("HTML document") from error
    _refuse_cut(parser)
    yield from blocks


def _refuse_cut(parser: Any) -> None:
    """Raise ReadingError if the parser has not read its document to the end."""
    if any(error.type in _CUT for error in parser.error_log):
        raise _refuse_size()


def _refuse_size() -> ReadingError:
    message = "nests deeper, or is larger, than can be read; save it with another program, or split it"
    return ReadingError(DocumentFailureCode.LIMIT, message)


class _Writer:
    """Collects what the parser reports (`start`, `data`, `end`, `close`) into blocks. It reports no comments."""

    def __init__(self) -> None:
        self._blocks: list[TextBlock] = []
        self._text: list[str] = []
        self._depth = 0
        self._unseen_depth = 0
        """Where the element begins that hides all within it; 0: none does."""

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise _refuse_size()
        if self._unseen_depth:
            return
        if not _is_seen(tag, attributes):
            self._unseen_depth = self._depth
        elif self._has_form():
            if tag in _BLOCKS or tag in _HEADINGS:
                self._end_block()
            elif tag == "br":
                self._text.append("\n")

    def data(self, text: str) -> None:
        if not self._unseen_depth:
            self._text.append(text)

    def end(self, tag: str) -> None:
        if not self._unseen_depth and self._has_form() and (tag in _BLOCKS or tag in _HEADINGS):
            self._end_block(_HEADINGS.get(tag, 0))
        if self._unseen_depth == self._depth:
            self._unseen_depth = 0
        self._depth -= 1

    def close(self) -> list[TextBlock]:
        self._end_block()
        return self._blocks

    def _has_form(self) -> bool:
        return self._depth <= _DEEPEST

    def _end_block(self, level: int = 0) -> None:
        lines = (_SPACE.sub(" ", line).strip() for line in "".join(self._text).split("\n"))
        self._text.clear()
        if text := ("\n" if not level else " ").join(line for line in lines if line):
            self._blocks.append(TextBlock(text, level))


def _is_seen(tag: str, attributes: Mapping[str, str]) -> bool:
    """Return whether a reader sees an element: no script or style, and not hidden."""
    if tag in _SILENT or "hidden" in attributes or attributes.get("aria-hidden") == "true":
        return False
    return not _UNSEEN.search(attributes.get("style", ""))
