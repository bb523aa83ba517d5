"""DOCX: paragraphs, headings by their style, and tables a row a line. Pictures and notes are no text here."""

import io
import zipfile
from collections.abc import Iterator
from typing import Any, Final

import docx
from docx.oxml.ns import qn
from docx.text.paragraph import Paragraph
from docx.text.run import Run
from lxml.etree import LxmlError

from r1plus_contract.documents import DocumentFailureCode, TextBlock
from r1plus_documents.reading.errors import ReadingError, refuse_damaged

MOST_UNPACKED_BYTES: Final = 128 * 2**20
"""Of all parts of the archive."""
MOST_PARTS: Final = 5000
_PARAGRAPH, _TABLE, _ROW, _CELL, _RUN = map(qn, ("w:p", "w:tbl", "w:tr", "w:tc", "w:r"))
_ROW_PROPERTIES, _DELETED = map(qn, ("w:trPr", "w:del"))
_STYLE, _NAME, _TYPE, _STYLE_ID = map(qn, ("w:style", "w:name", "w:type", "w:styleId"))
_DEFAULT, _VALUE = map(qn, ("w:default", "w:val"))
_YES: Final = frozenset({"1", "true", "on"})
_LEVELS: Final = frozenset("123456789")
_WRAPPERS: Final = frozenset(
    qn(f"w:{name}")
    for name in ("hyperlink", "ins", "moveTo", "sdt", "sdtContent", "smartTag", "customXml", "fldSimple", "dir", "bdo")
)
"""What is around text that is shown: links, fields of forms, text that was inserted. Deleted text (`w:del`) is none."""
_MACROS: Final = "vbaproject.bin"
_ENCRYPTED: Final = b"\xd0\xcf\x11\xe0"
"""How an encrypted document begins: it is no archive, but a compound file with one in it."""


def read_docx(data: bytes) -> Iterator[TextBlock]:
    """Yield the headings, paragraphs and rows of tables of a DOCX document."""
    _check_archive(data)
    try:
        document = docx.Document(io.BytesIO(data))
        body = document._body
        items = list(_list_within(body._element, _PARAGRAPH, _TABLE))
        levels, default = _read_levels(document.styles.element)
    except (ValueError, KeyError, LxmlError, zipfile.BadZipFile, AttributeError, OSError, NotImplementedError) as error:
        raise refuse_damaged("DOCX document") from error
    for item in items:
        if item.tag == _TABLE:
            if lines := _read_rows(item, body):
                yield TextBlock("\n".join(lines))
        elif text := _read_visible(Paragraph(item, body)).strip():
            yield TextBlock(text, levels.get(item.style, default))


def _list_within(element: Any, *tags: str) -> Iterator[Any]:
    """Yield the children of an element with these tags, also those that `_WRAPPERS` are around."""
    for child in element:
        if child.tag in tags:
            yield child
        elif child.tag in _WRAPPERS:
            yield from _list_within(child, *tags)


def _read_rows(table: Any, body: Any) -> list[str]:
    """Return the rows of a table, a line each. A cell that spans columns comes once, and one that spans rows in each.

    python-docx has a cell for each column of the grid, of which a document says as many as it likes.
    """
    lines: list[str] = []
    above: dict[int, str] = {}
    for row in _list_within(table, _ROW):
        if row.find(f"{_ROW_PROPERTIES}/{_DELETED}") is not None:
            continue
        cells: list[str] = []
        texts: dict[int, str] = {}
        column = row.grid_before
        for cell in _list_within(row, _CELL):
            text = above.get(column, "") if cell.vMerge == "continue" else _read_cell(cell, body)
            texts[column] = text
            column += cell.grid_span
            cells.append(text)  # An empty one, too: what is behind it is of another column.
        above = texts
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            lines.append(" | ".join(cells))
    return lines


def _read_cell(cell: Any, body: Any) -> str:
    """Return the text of a cell in one line, with that of tables in it."""
    texts: list[str] = []
    for item in _list_within(cell, _PARAGRAPH, _TABLE):
        texts += _read_rows(item, body) if item.tag == _TABLE else [_read_visible(Paragraph(item, body))]
    return " ".join(" ".join(texts).split())


def _read_visible(paragraph: Paragraph) -> str:
    """Return the text of a paragraph without runs that are hidden: who opens the document does not see them."""
    runs = (Run(run, paragraph) for run in _list_within(paragraph._element, _RUN))
    return "".join(run.text for run in runs if not run.font.hidden)


def _read_levels(styles: Any) -> tuple[dict[str, int], int]:
    """Return the level of each style of paragraphs by its id, and that of the default style; 0: it is no heading.

    python-docx looks through all styles of a document for that of one paragraph, and reads no style without a type.
    """
    levels: dict[str, int] = {}
    default = 0
    for style in styles.iter(_STYLE):
        name = style.find(_NAME)
        if name is None or style.get(_TYPE, "paragraph") != "paragraph":
            continue
        level = _read_level(name.get(_VALUE, ""))
        levels.setdefault(style.get(_STYLE_ID, ""), level)
        if style.get(_DEFAULT) in _YES:
            default = level
    return levels, default


def _read_level(name: str) -> int:
    """Return the level of a heading by its style's name, which is English in every file; 0 for a paragraph."""
    if name == "Title":
        return 1
    kind, _, level = name.partition(" ")
    return int(level) if kind in ("heading", "Heading") and level in _LEVELS else 0


def _check_archive(data: bytes) -> None:
    """Refuse what is no archive of a document's size before anything of it is unpacked. Nothing is ever extracted."""
    if data.startswith(_ENCRYPTED):
        message = "is encrypted, or in the old format .doc; save it as .docx without a password"
        raise ReadingError(DocumentFailureCode.ENCRYPTED, message)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise refuse_damaged("DOCX document") from error
    if any(part.filename.lower().endswith(_MACROS) for part in parts):
        raise ReadingError(DocumentFailureCode.MACROS, "has macros; save it as .docx, which has none")
    if any(part.flag_bits & 1 for part in parts):
        raise ReadingError(DocumentFailureCode.ENCRYPTED, "is encrypted; save it without a password")
    unpacked = sum(part.file_size for part in parts)
    if unpacked > MOST_UNPACKED_BYTES or len(parts) > MOST_PARTS:
        message = f"unpacks to {unpacked} bytes in {len(parts)} parts, more than {MOST_UNPACKED_BYTES} or {MOST_PARTS}"
        raise ReadingError(DocumentFailureCode.LIMIT, f"{message}; take pictures out, or split it")
