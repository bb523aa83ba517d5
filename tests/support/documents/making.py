"""Documents for tests, made as programs make them, and documents that are hostile."""

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence

import docx


def make_pdf(pages: Sequence[str], *, picture_pages: Sequence[int] = (), broken_pages: Sequence[int] = ()) -> bytes:
    """Return a PDF with a text a page, written by hand: any program's PDF is read by the same rules.

    `picture_pages`: numbers of pages that have a picture and no text; `broken_pages`: whose content is no stream.
    """
    objects: list[bytes] = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    objects.append(
        _stream(
            b"\0\0\0", b"/Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceRGB /BitsPerComponent 8"
        )
    )
    kids = []
    for number, text in enumerate(pages, 1):
        content = b"q 100 0 0 100 0 0 cm /I1 Do Q" if number in picture_pages else _write_lines(text)
        page = len(objects) + 1
        resources = (
            "/Font << /F1 3 0 R >> /XObject << /I1 4 0 R >>" if number in picture_pages else "/Font << /F1 3 0 R >>"
        )
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << {resources} >> /Contents {page + 1} 0 R >>".encode()
        )
        objects.append(
            b"<< /Length 3 /Filter /FlateDecode >>\nstream\nxyz\nendstream"
            if number in broken_pages
            else _stream(content)
        )
        kids.append(page)
    objects[1] = f"<< /Type /Pages /Count {len(kids)} /Kids [{' '.join(f'{kid} 0 R' for kid in kids)}] >>".encode()
    return _assemble(objects)


def _write_lines(text: str) -> bytes:
    lines = ["BT /F1 11 Tf 14 TL 50 780 Td"]
    for line in text.split("\n"):
        escaped = line.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
        lines.append(f"({escaped}) Tj T*")
    return "\n".join([*lines, "ET"]).encode("latin-1", "replace")


def _stream(data: bytes, entries: bytes = b"") -> bytes:
    packed = zlib.compress(data)
    return b"<< /Length %d /Filter /FlateDecode %b >>\nstream\n%b\nendstream" % (len(packed), entries, packed)


def _assemble(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    file, places = io.BytesIO(), []
    file.write(b"%PDF-1.4\n")
    for number, body in enumerate(objects, 1):
        places.append(file.tell())
        file.write(b"%d 0 obj\n%b\nendobj\n" % (number, body))
    start = file.tell()
    file.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    for place in places:
        file.write(b"%010d 00000 n \n" % place)
    file.write(b"trailer\n<< /Size %d /Root 1 0 R %b >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, trailer, start))
    return file.getvalue()


def make_pdf_with_many_pages(count: int) -> bytes:
    """Return a small PDF that says it has so many pages: all are one object."""
    kids = b" ".join([b"3 0 R"] * count)
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 10 10] >>"
    return _assemble(
        [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Count %d /Kids [%b] >>" % (count, kids), page]
    )


def make_pdf_bomb(mebibytes: int) -> bytes:
    """Return a small PDF with a page whose content unpacks to so many MiB."""
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 10 10] /Contents 4 0 R >>"
    pages = b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>"
    return _assemble([b"<< /Type /Catalog /Pages 2 0 R >>", pages, page, _stream(b" " * (mebibytes * 2**20))])


def make_encrypted_pdf() -> bytes:
    """Return a PDF that says it is encrypted."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Count 0 /Kids [] >>"]
    objects.append(b"<< /Filter /Standard /V 1 /R 2 /O <%b> /U <%b> /P -44 >>" % (b"00" * 32, b"00" * 32))
    return _assemble(objects, b"/Encrypt 3 0 R /ID [<00><00>]")


def make_docx(*paragraphs: tuple[str, int], rows: Sequence[Sequence[str]] = ()) -> bytes:
    """Return a DOCX of texts, each with the level of a heading; 0: a paragraph."""
    document, file = docx.Document(), io.BytesIO()
    for text, level in paragraphs:
        document.add_heading(text, level) if level else document.add_paragraph(text)
    if rows:
        table = document.add_table(len(rows), len(rows[0]))
        for place, row in enumerate(rows):
            for column, cell in enumerate(row):
                table.cell(place, column).text = cell
    document.save(file)
    return file.getvalue()


def change_archive(data: bytes, parts: dict[str, bytes]) -> bytes:
    """Return an archive with other or further parts."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if name not in parts:
                new.writestr(name, old.read(name))
        for name, content in parts.items():
            new.writestr(name, content)
    return file.getvalue()


def understate_sizes(data: bytes, size: int) -> bytes:
    """Return an archive whose directory says that each part unpacks to so many bytes."""
    changed = bytearray(data)
    for mark, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        start = changed.find(mark)
        while start >= 0:
            changed[start + offset : start + offset + 4] = struct.pack("<I", size)
            start = changed.find(mark, start + 4)
    return bytes(changed)


def change_body(xml: bytes) -> bytes:
    """Return a DOCX of this body."""
    begin = b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
    return change_archive(make_docx(("text", 0)), {"word/document.xml": begin + xml + b"</w:body></w:document>"})
