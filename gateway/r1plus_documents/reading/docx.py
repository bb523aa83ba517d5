"""DOCX: paragraphs, headings by their style, and tables a row a line. Pictures and notes are no text here."""

import io
import zipfile
from collections.abc import Iterator
from typing import Any, Final

import docx
from docx.table import Table, _Cell
from docx.text.hyperlink import Hyperlink
from lxml.etree import LxmlError

from r1plus_contract.documents import DocumentFailureCode, TextBlock
from r1plus_documents.reading.errors import ReadingError, refuse_damaged

MOST_UNPACKED_BYTES: Final = 128 * 2**20
"""Of all parts of the archive."""
MOST_PARTS: Final = 5000
_MACROS: Final = "vbaproject.bin"
_ENCRYPTED: Final = b"\xd0\xcf\x11\xe0"
"""How an encrypted document begins: it is no archive, but a compound file with one in it."""


def read_docx(data: bytes) -> Iterator[TextBlock]:
    """Yield the headings, paragraphs and rows of tables of a DOCX document."""
    _check_archive(data)
    try:
        document = docx.Document(io.BytesIO(data))
        items = list(document.iter_inner_content())
    except (ValueError, KeyError, LxmlError, zipfile.BadZipFile, AttributeError, OSError, NotImplementedError) as error:
        raise refuse_damaged("DOCX document") from error
    for item in items:
        if isinstance(item, Table):
            yield from _read_rows(item)
        elif text := _read_visible(item).strip():
            yield TextBlock(text, _read_level(item))


def _read_rows(table: Any) -> Iterator[TextBlock]:
    """Yield the rows of a table, a line each. A cell that spans columns comes once, and one that spans rows in each.

    `row.cells` of python-docx has a cell for each column of the grid, of which a document says as many as it likes.
    """
    lines: list[str] = []
    above: dict[int, str] = {}
    for row in table.rows:
        cells: list[str] = []
        texts: dict[int, str] = {}
        column = row.grid_cols_before
        for tc in row._tr.tc_lst:
            text = above.get(column, "") if tc.vMerge == "continue" else _read_cell(_Cell(tc, table))
            texts[column] = text
            column += tc.grid_span
            if text and (not cells or cells[-1] != text):
                cells.append(text)
        above = texts
        if cells:
            lines.append(" | ".join(cells))
    if lines:
        yield TextBlock("\n".join(lines))


def _read_cell(cell: Any) -> str:
    return " ".join(" ".join(map(_read_visible, cell.paragraphs)).split())


def _read_visible(paragraph: Any) -> str:
    """Return the text of a paragraph without runs that are hidden: who opens the document does not see them."""
    runs = (
        run
        for item in paragraph.iter_inner_content()
        for run in (item.runs if isinstance(item, Hyperlink) else (item,))
    )
    return "".join(run.text for run in runs if not run.font.hidden)


def _read_level(paragraph: Any) -> int:
    """Return the level of a heading; 0 for a paragraph. Names of styles are English in every file."""
    style = paragraph.style
    name = (style.name or "") if style is not None else ""
    if name == "Title":
        return 1
    level = name.removeprefix("Heading ") if name.startswith("Heading ") else ""
    return int(level) if level.isascii() and level.isdecimal() and len(level) == 1 and level != "0" else 0


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
