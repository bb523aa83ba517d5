"""What children need is loaded before they are forked: they can open no file."""

import gc
import io
import logging
import time

import docx
import pypdf

from r1plus_documents.server.worker import read_document

log = logging.getLogger(__name__)


def preload() -> None:
    """Read a small document of each format, so that what libraries import late is there."""
    started = time.monotonic()
    for name, data in (
        ("a.txt", b"text"),
        ("a.md", b"# Heading\n\ntext"),
        ("a.html", b"<h1>Heading</h1><p>text"),
        ("a.docx", _make_docx()),
        ("a.pdf", _make_pdf()),
    ):
        list(read_document(name, data))
    gc.collect()
    gc.freeze()  # else a collection in a child would copy every page
    log.info("Readers loaded in %.1f s", time.monotonic() - started)


def _make_docx() -> bytes:
    document, file = docx.Document(), io.BytesIO()
    document.add_heading("Heading", 1)
    document.add_paragraph("text")
    document.add_table(1, 1).cell(0, 0).text = "cell"
    document.save(file)
    return file.getvalue()


def _make_pdf() -> bytes:
    """Return a page with a line of text in a standard font, compressed."""
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer, file = pypdf.PdfWriter(), io.BytesIO()
    page = writer.add_blank_page(200, 200)
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    page[NameObject("/Resources")] = DictionaryObject(
        {NameObject("/Font"): DictionaryObject({NameObject("/F1"): writer._add_object(font)})}
    )
    content = DecodedStreamObject()
    content.set_data(b"BT /F1 12 Tf 20 100 Td (text) Tj ET")
    page[NameObject("/Contents")] = writer._add_object(content.flate_encode())
    writer.write(file)
    return file.getvalue()
