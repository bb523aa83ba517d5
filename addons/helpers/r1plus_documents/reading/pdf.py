"""PDF: the text of each page. A page without text that has pictures is reported: it was scanned."""

import io
import re
from collections.abc import Iterator
from typing import Any, Final

import pypdf

from r1plus_contract.documents import MOST_PAGES, DocumentFailureCode, TextBlock, UnreadablePage
from r1plus_documents.reading.errors import ReadingError, refuse_damaged

_SCANNED: Final = "has pictures and no text: it was scanned. Let a program recognise its text (OCR), and upload that"
_DAMAGED: Final = "cannot be read: it is damaged. Print the document into a new PDF, and upload that"
_ENCRYPTION: Final = b"/Encrypt"
_SPACE: Final = re.compile(r"[^\S\n]+")
_PARAGRAPH_END: Final = re.compile(r"\n\s*\n")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff\ud800-\udfff]")


def read_pdf(data: bytes) -> Iterator[TextBlock | UnreadablePage]:
    """Yield the paragraphs of each page, and the pages that cannot be read."""
    pages = _open(data)
    for number in range(1, len(pages) + 1):
        try:
            page = pages[number - 1]
            text = page.extract_text()
            is_scanned = not text.strip() and _has_pictures(page)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - of a page that is damaged, pypdf raises whatever it meets
            yield UnreadablePage(number, _DAMAGED)
            continue
        if is_scanned:
            yield UnreadablePage(number, _SCANNED)
        for paragraph in _PARAGRAPH_END.split(_UNPRINTABLE.sub(" ", text)):
            if clean := "\n".join(_SPACE.sub(" ", line).strip() for line in paragraph.split("\n")).strip():
                yield TextBlock(clean, page=number)


def _open(data: bytes) -> Any:
    """Return the pages.

    Raises:
        ReadingError: it is no PDF, encrypted, or has too many pages.
    """
    try:
        reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted:
            raise _refuse_encrypted()
        count = len(reader.pages)
    except (MemoryError, ReadingError):
        raise
    except Exception as error:
        # An empty password is tried, for which a child may lack what it could load.
        raise (_refuse_encrypted() if _ENCRYPTION in data else refuse_damaged("PDF")) from error
    if count > MOST_PAGES:
        message = f"has {count} pages, more than {MOST_PAGES}; split it"
        raise ReadingError(DocumentFailureCode.LIMIT, message)
    return reader.pages


def _refuse_encrypted() -> ReadingError:
    return ReadingError(DocumentFailureCode.ENCRYPTED, "is encrypted; save it without a password")


def _has_pictures(page: Any) -> bool:
    resources = page.get("/Resources")
    objects = resources.get_object().get("/XObject") if resources is not None else None
    if objects is None:
        return False
    found = objects.get_object()
    return any(found[name].get_object().get("/Subtype") == "/Image" for name in found)
