"""Which reader a document gets: by its name's extension, which its first bytes may not contradict."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import docx
import lxml
import markdown_it
import pypdf

from r1plus_contract.documents import MOST_BLOCK_CHARACTERS, DocumentFailureCode, TextBlock, UnreadablePage
from r1plus_documents.reading.docx import read_docx
from r1plus_documents.reading.errors import ReadingError
from r1plus_documents.reading.html import read_html
from r1plus_documents.reading.markdown import read_markdown
from r1plus_documents.reading.pdf import read_pdf
from r1plus_documents.reading.text import read_text

Reader = Callable[[bytes], Iterator[TextBlock | UnreadablePage]]
RELEASE: Final = 4
"""Of our readers: a change in what they yield is another one."""
_LOOKED_AT: Final = 1024
_PACKED: Final = {
    b"PK\x03\x04": "an archive (ZIP)",
    b"\xd0\xcf\x11\xe0": "a document of an old format (.doc, .xls, .ppt)",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"\x1f\x8b": "an archive (gzip)",
    b"Rar!": "an archive (RAR)",
    b"7z\xbc\xaf": "an archive (7z)",
    b"\x7fELF": "a program",
}


@dataclass(frozen=True, slots=True)
class Format:
    """One format."""

    name: str
    read: Reader
    library: str
    """Name and version of what reads it; empty: our own code."""

    @property
    def reader(self) -> str:
        """What cuts a text in its places: format, our release, the library's."""
        return f"{self.name}/{RELEASE}{f' {self.library}' if self.library else ''}"


TEXT: Final = Format("text", read_text, "")
MARKDOWN: Final = Format("markdown", read_markdown, f"markdown-it-py/{markdown_it.__version__}")
HTML: Final = Format("html", read_html, f"lxml/{lxml.__version__}")
PDF: Final = Format("pdf", read_pdf, f"pypdf/{pypdf.__version__}")
DOCX: Final = Format("docx", read_docx, f"python-docx/{docx.__version__}")
_FORMATS: Final = {
    ".txt": TEXT,
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".html": HTML,
    ".htm": HTML,
    ".pdf": PDF,
    ".docx": DOCX,
}


def find_format(name: str, data: bytes) -> Format:
    """Return the format of a document.

    Raises:
        ReadingError: it has none that is read.
    """
    extension = name[name.rfind(".") :].lower() if "." in name else ""
    is_pdf = b"%PDF-" in data[:_LOOKED_AT]
    if extension == ".docm":
        raise ReadingError(DocumentFailureCode.MACROS, "has macros; save it as .docx, which has none")
    found = _FORMATS.get(extension, TEXT)
    if is_pdf != (found is PDF) and (is_pdf or found is PDF):
        message = "is a PDF by its content and not by its name" if is_pdf else "is no PDF, though its name says so"
        raise ReadingError(DocumentFailureCode.UNSUPPORTED_FORMAT, f"{message}; upload it under its own extension")
    packed = next((kind for mark, kind in _PACKED.items() if data.startswith(mark)), "")
    if packed and found is not DOCX:
        raise ReadingError(
            DocumentFailureCode.UNSUPPORTED_FORMAT,
            f"is {packed}; upload text, Markdown, HTML, PDF or DOCX under its own extension",
        )
    return found


def read_blocks(found: Format, data: bytes) -> Iterator[TextBlock | UnreadablePage]:
    """Yield what a document has, long texts cut.

    Raises:
        ReadingError: it cannot be read, or has no text.
    """
    has_text = has_unreadable = False
    for block in found.read(data):
        if isinstance(block, UnreadablePage):
            has_unreadable = True
            yield block
            continue
        has_text = True
        for start in range(0, len(block.text), MOST_BLOCK_CHARACTERS):
            yield TextBlock(block.text[start : start + MOST_BLOCK_CHARACTERS], block.level, block.page)
    if not has_text:
        reason = "no page could be read" if has_unreadable else "it is empty"
        remedy = "let a program recognise its text (OCR)" if has_unreadable else "upload one with text"
        raise ReadingError(DocumentFailureCode.NO_TEXT, f"has no text: {reason}; {remedy}")
