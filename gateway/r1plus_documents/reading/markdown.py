"""Markdown: its headings and paragraphs, as they are written. Code stays whole, and a `#` in it is no heading."""

from collections.abc import Iterator

from markdown_it import MarkdownIt

from r1plus_contract.documents import TextBlock
from r1plus_documents.reading.text import decode_text


def read_markdown(data: bytes) -> Iterator[TextBlock]:
    """Yield headings and blocks of a Markdown text."""
    text = decode_text(data)
    lines = text.split("\n")
    # What stands within a block is not parsed: it stays as it is written, and would take most of the time.
    tokens = MarkdownIt("commonmark", {"html": True}).disable("inline").parse(text)
    last = 0
    for position, token in enumerate(tokens):
        if token.map is None or token.level != 0 or token.nesting < 0:
            continue
        begin, end = max(token.map[0], last), token.map[1]
        last = max(last, end)
        if token.type == "heading_open":
            if heading := tokens[position + 1].content.strip():
                yield TextBlock(heading, int(token.tag[1:]))
        elif block := "\n".join(lines[begin:end]).strip():
            yield TextBlock(block)
