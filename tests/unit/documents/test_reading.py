"""Reading documents: what text each format gives, with its places, and what is refused with which remedy."""

from pathlib import Path

import pytest

from r1plus_contract.documents import (
    MOST_BLOCK_CHARACTERS,
    MOST_PAGES,
    DocumentFailureCode,
    DocumentReply,
    TextBlock,
)
from r1plus_documents.reading.docx import MOST_UNPACKED_BYTES
from r1plus_documents.reading.errors import ReadingError
from r1plus_documents.server.worker import read_document
from support.documents.making import (
    change_archive,
    change_body,
    make_docx,
    make_encrypted_pdf,
    make_pdf,
    make_pdf_with_many_pages,
)

PLAIN_DOCX = make_docx(("text", 0))


def read_all(name: str, data: bytes) -> DocumentReply:
    """Return all replies as one."""
    replies = list(read_document(name, data))
    assert replies[0].reader
    assert [reply.is_end for reply in replies] == [False] * (len(replies) - 1) + [True]
    blocks = tuple(block for reply in replies for block in reply.blocks)
    unreadable = tuple(page for reply in replies for page in reply.unreadable)
    return DocumentReply(replies[0].reader, blocks, unreadable, replies[-1].pages, is_end=True)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.txt", b"One\nline.\n\n  \nTwo.\r\n\r\nThree.", ["One\nline.", "Two.", "Three."]),
        ("a.TXT", "Größe".encode("utf-16"), ["Größe"]),
        ("notes", "\ufeffGröße".encode(), ["Größe"]),
        ("a.py", b"def f():\n    return 1\n", ["def f():\n    return 1"]),
        (
            "a.md",
            b"Intro.\n\n# One\n\ntext\n\n```\n# no heading\n\nx\n```\n\nTwo\n---\n\n* a\n* b\n",
            ["Intro.", ("One", 1), "text", "```\n# no heading\n\nx\n```", ("Two", 2), "* a\n* b"],
        ),
        (
            "a.html",
            (
                b"<title>x</title><h1>One <b>two</b></h1><p>text<br>more</p><script>evil()</script><div hidden>no</div>"
                b"<ul><li>a<li>b</ul><p style='x'>&lt;end&gt;"
            ),
            [("One two", 1), "text\nmore", "a", "b", "<end>"],
        ),
        (
            "a.html",
            (
                b"<p>seen</p><p style='color: red; Display : none'>no</p><p style='visibility:hidden'>no</p><!-- no -->"
                b"<p style='display: block'>shown"
            ),
            ["seen", "shown"],
        ),
        (
            "a.html",
            b"<div>" * 230 + b"deep<script>evil()</script><p hidden>no</p><i style='display:none'>no</i><b>er</b> text",
            ["deeper text"],
        ),
        ("a.html", b"<div>" * 1000 + b"deep" + b"</div>" * 1000 + b"<p>after", ["deep", "after"]),
        ("a.htm", "<meta charset=iso-8859-1><p>Größe".encode("latin-1"), ["Größe"]),
    ],
    ids=[
        "plain text has paragraphs",
        "UTF-16 with a mark",
        "no extension is plain text",
        "source is plain text",
        "Markdown has headings, and none in code",
        "HTML shows what a reader sees",
        "HTML that a style hides",
        "HTML that nests deep shows no more",
        "HTML goes on behind what nests deep",
        "HTML says its encoding",
    ],
)
def test_a_format_gives_its_text(name: str, data: bytes, expected: list[str | tuple[str, int]]) -> None:
    blocks = [TextBlock(*one) if isinstance(one, tuple) else TextBlock(one) for one in expected]
    assert list(read_all(name, data).blocks) == blocks


def test_a_pdf_gives_the_text_of_each_page_with_its_number() -> None:
    document = read_all("a.pdf", make_pdf(["First (page)\nof two", "Second"]))
    assert document.blocks == (TextBlock("First (page)\nof two", page=1), TextBlock("Second", page=2))
    assert document.pages == 2
    assert "pypdf/" in document.reader


def test_a_page_that_cannot_be_read_is_reported_and_the_others_are_read() -> None:
    document = read_all("a.pdf", make_pdf(["One", "", "Three", "x"], picture_pages=[2], broken_pages=[4]))
    assert [block.page for block in document.blocks] == [1, 3]
    assert [page.page for page in document.unreadable][:1] == [2]
    assert "OCR" in document.unreadable[0].message


HIDDEN_RUNS = b"""
<w:p><w:r><w:t>seen</w:t></w:r><w:r><w:rPr><w:vanish/></w:rPr><w:t>no</w:t></w:r><w:hyperlink><w:r><w:t>, linked</w:t></w:r>
</w:hyperlink></w:p><w:p><w:r><w:rPr><w:vanish/></w:rPr><w:t>no</w:t></w:r></w:p><w:tbl><w:tr><w:tc><w:p><w:r><w:t>cell</w:t>
</w:r><w:r><w:rPr><w:vanish/></w:rPr><w:t>no</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"""
WRAPPED = b"""<w:sdt><w:sdtPr/><w:sdtContent><w:p><w:r><w:t>A form.</w:t></w:r></w:p></w:sdtContent></w:sdt><w:p><w:ins><w:r>
<w:t>Inserted</w:t></w:r></w:ins><w:del><w:r><w:delText>no</w:delText></w:r></w:del><w:moveFrom><w:r><w:t>no</w:t></w:r>
</w:moveFrom><w:sdt><w:sdtContent><w:r><w:t xml:space="preserve"> field</w:t></w:r></w:sdtContent></w:sdt></w:p><w:tbl>
<w:sdt><w:sdtContent><w:tr><w:tc><w:p><w:r><w:t>outer</w:t></w:r></w:p><w:tbl><w:tr><w:tc><w:p><w:r><w:t>inner</w:t></w:r>
</w:p></w:tc></w:tr></w:tbl></w:tc></w:tr></w:sdtContent></w:sdt></w:tbl>"""
DELETED_ROW = b"""<w:tbl><w:tr><w:tc><w:p><w:r><w:t>price</w:t></w:r></w:p></w:tc></w:tr><w:tr><w:trPr><w:del/></w:trPr><w:tc><w:p><w:r>
<w:t>no</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"""


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (HIDDEN_RUNS, ["seen, linked", "cell"]),
        (WRAPPED, ["A form.", "Inserted field", "outer inner"]),
        (DELETED_ROW, ["price"]),
    ],
    ids=["not what is hidden", "fields of forms, inserted text, and tables in tables", "no row that was deleted"],
)
def test_a_docx_gives_what_a_reader_sees(body: bytes, texts: list[str]) -> None:
    assert list(read_all("a.docx", change_body(body)).blocks) == list(map(TextBlock, texts))


def make_cell(text: str, properties: str) -> str:
    return f"<w:tc><w:tcPr>{properties}</w:tcPr><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:tc>"


def test_a_merged_cell_costs_no_more_than_it_has_text() -> None:
    first = make_cell("wide", '<w:gridSpan w:val="100000000"/>')
    top = make_cell("tall", '<w:vMerge w:val="restart"/>') + make_cell("0", "")
    below = "".join(f"<w:tr>{make_cell('', '<w:vMerge/>')}{make_cell(str(row), '')}</w:tr>" for row in range(1, 1200))
    table = f"<w:tbl><w:tr>{make_cell('', '<w:vMerge/>')}</w:tr><w:tr>{first}</w:tr><w:tr>{top}</w:tr>{below}</w:tbl>"
    document = read_all("a.docx", change_body(table.encode()))
    assert document.blocks == (TextBlock("\n".join(["wide", *(f"tall | {row}" for row in range(1200))])),)


def test_a_docx_gives_headings_paragraphs_and_rows_in_their_order() -> None:
    data = make_docx(("Top", 1), ("text", 0), ("Sub", 2), rows=[["", "b", ""], ["c", "c", "d"], ["e", "", "f"]])
    document = read_all("a.docx", data)
    assert list(document.blocks) == [
        TextBlock("Top", 1),
        TextBlock("text"),
        TextBlock("Sub", 2),
        TextBlock(" | b\nc | c | d\ne |  | f"),
    ]


STYLES = b"""<w:styles xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">
<w:style w:styleId="A"><w:name w:val="heading 2"/></w:style><w:style w:type="paragraph" w:styleId="B"><w:name w:val="Title"/></w:style>
<w:style w:type="paragraph" w:styleId="N" w:default="1"><w:name w:val="Normal"/></w:style><w:style w:type="banana" w:styleId="C">
<w:name w:val="heading 3"/></w:style><w:style w:type="paragraph"/></w:styles>"""


def test_a_docx_with_styles_of_no_type_or_a_wrong_one_has_the_headings_of_the_others() -> None:
    paragraphs = "".join(
        f'<w:p><w:pPr><w:pStyle w:val="{style}"/></w:pPr><w:r><w:t>{style}</w:t></w:r></w:p>' for style in "ABCND"
    )
    document = read_all("a.docx", change_archive(change_body(paragraphs.encode()), {"word/styles.xml": STYLES}))
    assert [(block.text, block.level) for block in document.blocks] == [
        ("A", 2),
        ("B", 1),
        ("C", 0),
        ("N", 0),
        ("D", 0),
    ]


def test_html_goes_on_behind_a_very_long_paragraph() -> None:
    document = read_all("a.html", b"<p>" + b"word " * 2_100_000 + b"</p><p>after")
    assert document.blocks[-1] == TextBlock("after")


def test_a_long_paragraph_is_cut_into_blocks() -> None:
    document = read_all("a.txt", b"x" * (2 * MOST_BLOCK_CHARACTERS + 1))
    assert [len(block.text) for block in document.blocks] == [MOST_BLOCK_CHARACTERS, MOST_BLOCK_CHARACTERS, 1]


ENTITY = (
    b'<?xml version="1.0"?><!DOCTYPE w:document [<!ENTITY x SYSTEM "file:///etc/passwd"><!ENTITY a "aaaaaaaaaa">'
    b'<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/'
    b'2006/main"><w:body><w:p><w:r><w:t>before &x; &b; after</w:t></w:r></w:p></w:body></w:document>'
)


def test_an_external_entity_is_not_read() -> None:
    try:
        document = read_all("a.docx", change_archive(PLAIN_DOCX, {"word/document.xml": ENTITY}))
    except ReadingError as error:
        assert error.code in (DocumentFailureCode.DAMAGED, DocumentFailureCode.NO_TEXT)
    else:
        assert "root:" not in str(document.blocks)
        assert "aaaa" not in str(document.blocks)


@pytest.mark.parametrize(
    ("name", "data", "code", "remedy"),
    [
        ("a.txt", "Größe".encode("latin-1"), DocumentFailureCode.WRONG_ENCODING, "save it as UTF-8"),
        (
            "a.html",
            b"<p>before</p>" + b"<div>" * 3000 + b"deep",
            DocumentFailureCode.LIMIT,
            "save it with another program",
        ),
        ("a.html", b"<meta charset=klingon><p>x", DocumentFailureCode.WRONG_ENCODING, "save it as UTF-8"),
        ("a.txt", b"\0\1\2\3", DocumentFailureCode.UNSUPPORTED_FORMAT, "send text, Markdown"),
        ("a.txt", PLAIN_DOCX, DocumentFailureCode.UNSUPPORTED_FORMAT, "upload text, Markdown"),
        ("a.xlsx", PLAIN_DOCX, DocumentFailureCode.UNSUPPORTED_FORMAT, "upload text, Markdown"),
        ("a.pdf", b"hello", DocumentFailureCode.UNSUPPORTED_FORMAT, "under its own extension"),
        ("a.txt", make_pdf(["x"]), DocumentFailureCode.UNSUPPORTED_FORMAT, "under its own extension"),
        ("a.txt", b" \n ", DocumentFailureCode.NO_TEXT, "upload one with text"),
        ("a.pdf", make_pdf(["", ""], picture_pages=[1, 2]), DocumentFailureCode.NO_TEXT, "OCR"),
        ("a.pdf", b"%PDF-1.4 nothing", DocumentFailureCode.DAMAGED, "save it again"),
        ("a.pdf", make_encrypted_pdf(), DocumentFailureCode.ENCRYPTED, "without a password"),
        ("a.pdf", make_pdf_with_many_pages(MOST_PAGES + 1), DocumentFailureCode.LIMIT, "split it"),
        ("a.docx", b"PK\x03\x04 nothing", DocumentFailureCode.DAMAGED, "save it again"),
        ("a.docx", b"hello", DocumentFailureCode.DAMAGED, "save it again"),
        ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", DocumentFailureCode.ENCRYPTED, "without a password"),
        ("a.docm", PLAIN_DOCX, DocumentFailureCode.MACROS, "save it as .docx"),
        (
            "a.docx",
            change_archive(PLAIN_DOCX, {"word/vbaProject.bin": b"x"}),
            DocumentFailureCode.MACROS,
            "save it as .docx",
        ),
        (
            "a.docx",
            change_archive(PLAIN_DOCX, {"word/media/x.bin": b"\0" * (MOST_UNPACKED_BYTES + 1)}),
            DocumentFailureCode.LIMIT,
            "take pictures out",
        ),
        (
            "a.docx",
            change_archive(PLAIN_DOCX, {"[Content_Types].xml": b"<Types/>"}),
            DocumentFailureCode.DAMAGED,
            "save it again",
        ),
    ],
    ids=[
        "text that is not UTF-8",
        "HTML that nests so deep that its end is lost",
        "an encoding that nobody knows",
        "bytes that are no text",
        "an archive by the name of a text",
        "a spreadsheet",
        "a text by the name of a PDF",
        "a PDF by the name of a text",
        "nothing but spaces",
        "pages that were scanned",
        "a PDF that is cut",
        "a PDF with a password",
        "a PDF of too many pages",
        "a DOCX that is cut",
        "a text by the name of a DOCX",
        "a DOCX with a password",
        "a DOCX with macros, by its name",
        "a DOCX with macros, by its parts",
        "a DOCX that unpacks to too much",
        "an archive that is no DOCX",
    ],
)
def test_what_cannot_be_read_is_refused_with_a_remedy(
    name: str, data: bytes, code: DocumentFailureCode, remedy: str
) -> None:
    with pytest.raises(ReadingError, match=remedy) as refused:
        read_all(name, data)
    assert refused.value.code is code


def test_path_names_in_an_archive_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "one" / "two"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    before = sorted(tmp_path.rglob("*"))
    names = ("../../escaped", f"{tmp_path}/escaped-by-its-root", "escaped-in-its-folder")
    data = change_archive(PLAIN_DOCX, dict.fromkeys(names, b"x"))
    assert read_all("../../a.docx", data).blocks == (TextBlock("text"),)
    assert sorted(tmp_path.rglob("*")) == before
