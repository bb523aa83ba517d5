"""What a document costs to read grows as its size does: four times as much of anything takes about four times as long."""

import time
from collections.abc import Callable

import pytest

from r1plus_documents.server.worker import read_document
from support.documents.making import change_archive, change_body

PASSES = 4
MOST_TIMES = 9.0
"""Of the time of a quarter: four where the cost grows with the size, sixteen where it grows with the square."""


def make_attributes(count: int, form: str) -> str:
    return " ".join(form.format(number) for number in range(count))


def make_styled(count: int) -> bytes:
    """Return a DOCX of paragraphs that each have a style of their own."""
    names = "".join(
        f'<w:style w:type="paragraph" w:styleId="S{number}"><w:name w:val="S{number}"/></w:style>'
        for number in range(count)
    )
    text = "".join(
        f'<w:p><w:pPr><w:pStyle w:val="S{number}"/></w:pPr><w:r><w:t>hello</w:t></w:r></w:p>' for number in range(count)
    )
    namespace = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    return change_archive(
        change_body(text.encode()), {"word/styles.xml": f"<w:styles {namespace}>{names}</w:styles>".encode()}
    )


def make_paragraph(attributes: str) -> bytes:
    return change_body(f"<w:p {attributes}><w:r><w:t>hello</w:t></w:r></w:p>".encode())


CASES: dict[str, tuple[str, int, Callable[[int], bytes]]] = {
    "attributes of an HTML element": (
        "a.html",
        4000,
        lambda count: f"<p {make_attributes(count, 'a{}=1')}>hello".encode(),
    ),
    "namespaces of an HTML element": (
        "a.html",
        4000,
        lambda count: f"<p {make_attributes(count, 'xmlns:a{0}=u')}>hello".encode(),
    ),
    "HTML end tags of what was never opened, in deep elements": (
        "a.html",
        4000,
        lambda count: b"<i>" * 2000 + b"hello" + b"</b>" * count,
    ),
    "attributes of an XML element": (
        "a.docx",
        10_000,
        lambda count: make_paragraph(make_attributes(count, "a{}='1'")),
    ),
    "namespaces of an XML element": (
        "a.docx",
        10_000,
        lambda count: make_paragraph(make_attributes(count, "xmlns:a{0}='u{0}'")),
    ),
    "styles of a DOCX": ("a.docx", 500, make_styled),
    "Markdown quotations that end at once": ("a.md", 300, lambda count: b"> ```\nhello\n" * count),
}


@pytest.mark.parametrize(("name", "count", "make"), CASES.values(), ids=CASES.keys())
def test_a_document_costs_as_much_as_its_size(name: str, count: int, make: Callable[[int], bytes]) -> None:
    """Processor time, the least of some passes each: it is compared with that of a quarter, not with a clock."""
    quarter, whole = (min(measure_reading(name, make(size)) for _ in range(PASSES)) for size in (count, 4 * count))
    assert whole < MOST_TIMES * quarter


def measure_reading(name: str, data: bytes) -> float:
    """Return the processor seconds of reading a document, whose text is there."""
    began = time.process_time()
    replies = list(read_document(name, data))
    seconds = time.process_time() - began
    assert "hello" in str(replies)
    return seconds
