"""HTML: what a reader sees of it. Scripts, styles and what is hidden are no text; nothing is loaded."""

import re
from collections.abc import Iterator
from typing import Any, Final

import lxml.etree
import lxml.html

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
_DEEPEST: Final = 200
_CUT: Final = (lxml.etree.ErrorTypes.ERR_RESOURCE_LIMIT, lxml.etree.ErrorTypes.ERR_NO_MEMORY)
"""Errors behind which the parser has dropped the rest of a document, and says nothing else."""


def read_html(data: bytes) -> Iterator[TextBlock]:
    """Yield headings and paragraphs of an HTML document."""
    declared = _CHARSET.search(data[:_LOOKED_AT])
    text = decode_text(data, declared[1].decode().lower() if declared else "utf-8")
    # Without `huge_tree` a paragraph of 10 MB ends the document, and so does what nests deeper than 256 elements.
    parser = lxml.html.HTMLParser(encoding="utf-8", huge_tree=True)
    try:
        root = lxml.html.document_fromstring(text.encode(), parser=parser)
    except (lxml.etree.LxmlError, ValueError) as error:
        _refuse_cut(parser)
        raise refuse_damaged("HTML document") from error
    _refuse_cut(parser)
    writer = _Writer()
    _walk(root, writer, 0)
    yield from writer.finish()


def _refuse_cut(parser: Any) -> None:
    """Raise ReadingError if the parser has not read its document to the end."""
    if any(error.type in _CUT for error in parser.error_log):
        message = "nests deeper, or is larger, than can be read; save it with another program, or split it"
        raise ReadingError(DocumentFailureCode.LIMIT, message)


class _Writer:
    """Collects text into blocks."""

    def __init__(self) -> None:
        self._blocks: list[TextBlock] = []
        self._text: list[str] = []

    def add(self, text: str | None) -> None:
        if text:
            self._text.append(text)

    def end_block(self, level: int = 0) -> None:
        lines = (_SPACE.sub(" ", line).strip() for line in "".join(self._text).split("\n"))
        self._text.clear()
        if text := ("\n" if not level else " ").join(line for line in lines if line):
            self._blocks.append(TextBlock(text, level))

    def finish(self) -> list[TextBlock]:
        self.end_block()
        return self._blocks


def _walk(element: Any, writer: _Writer, depth: int) -> None:
    """Write an element and all within it; what nests deeper than `_DEEPEST` is written without its form."""
    if not _is_seen(element):
        return
    if depth > _DEEPEST:
        writer.add("".join(_list_texts(element)))
        return
    tag = element.tag
    level = _HEADINGS.get(tag, 0)
    is_block = bool(level) or tag in _BLOCKS
    if is_block:
        writer.end_block()
    writer.add("\n" if tag == "br" else element.text)
    for child in element:
        _walk(child, writer, depth + 1)
        writer.add(child.tail)
    if is_block:
        writer.end_block(level)


def _is_seen(element: Any) -> bool:
    """Return whether a reader sees an element: no comment, script or style, and not hidden."""
    tag = element.tag if isinstance(element.tag, str) else ""
    if not tag or tag in _SILENT or "hidden" in element.attrib or element.get("aria-hidden") == "true":
        return False
    return not _UNSEEN.search(element.get("style", ""))


def _list_texts(element: Any) -> Iterator[str]:
    """Yield the texts of an element and of all that is seen within it, however deep."""
    rest = [element]
    while rest:
        one = rest.pop()
        if isinstance(one, str):
            yield one
        elif _is_seen(one):
            parts = [one.text or ""]
            for child in one:
                parts += [child, child.tail or ""]
            rest += reversed(parts)
