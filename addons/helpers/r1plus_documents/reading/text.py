"""Plain text, and what other formats share: encodings, and paragraphs."""

import codecs
import re
from collections.abc import Iterator
from typing import Final

from r1plus_contract.documents import DocumentFailureCode, TextBlock
from r1plus_documents.reading.errors import ReadingError

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""What a text begins with that names its encoding; UTF-32 before UTF-16, whose mark it begins with."""
_CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_PARAGRAPH_END: Final = re.compile(r"\n[^\S\n]*\n\s*")


def read_text(data: bytes) -> Iterator[TextBlock]:
    """Yield the paragraphs of a plain text."""
    for paragraph in _PARAGRAPH_END.split(decode_text(data)):
        if text := paragraph.strip():
            yield TextBlock(text)


def decode_text(data: bytes, encoding: str = "utf-8") -> str:
    """Return a text with line feeds; a mark at its beginning says its encoding.

    Raises:
        ReadingError: it is no text, or not of this encoding.
    """
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", encoding))
    try:
        text = data[len(mark) :].decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        place = f" at byte {len(mark) + error.start}" if isinstance(error, UnicodeDecodeError) else ""
        message = f"is no text in {encoding.upper()}{place}; save it as UTF-8"
        raise ReadingError(DocumentFailureCode.WRONG_ENCODING, message) from error
    if found := _CONTROL.search(text):
        message = f"has control characters at position {found.start()}, so it is no text; send text, Markdown, HTML,"
        raise ReadingError(DocumentFailureCode.UNSUPPORTED_FORMAT, f"{message} PDF or DOCX")
    return text.replace("\r\n", "\n").replace("\r", "\n")
