"""Markdown: its headings and paragraphs, as they are written. Code stays whole, and a `#` in it is no heading."""

from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock

from r1plus_contract.documents import TextBlock
from r1plus_documents.reading.text import decode_text


def read_markdown(data: bytes) -> Iterator[TextBlock]:
    """Yield headings and blocks of a Markdown text."""
    text = decode_text(data)
    lines = text.split("\n")
    # What stands within a block is not parsed: it stays as it is written, and would take most of the time.
    parser = MarkdownIt("commonmark", {"html": True}).disable("inline")
    parser.block.ruler.at("blockquote", _find_quotation, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    tokens = parser.parse(text)
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


def _find_quotation(state: StateBlock, start: int, end: int, is_silent: bool) -> bool:
    """Find a quotation's lines, in the library's form of a rule, and leave them as they are written.

    The library's own rule parses what is quoted, and before that looks at lines behind it, up to all of the document.
    """
    if state.is_code_block(start) or not _read_line(state, start).startswith(">"):
        return False
    if is_silent:
        return True
    others = state.md.block.ruler.getRules("blockquote")
    parent, state.parentType = state.parentType, "blockquote"
    line, has_text = start, False
    while line < end and (text := _read_line(state, line)):
        if text.startswith(">") and not state.is_code_block(line) and state.sCount[line] >= state.blkIndent:
            has_text = bool(text.strip("> \t"))
        elif not has_text or any(rule(state, line, end, True) for rule in others):
            break  # Else it goes on with a paragraph that is quoted.
        line += 1
    state.parentType = parent
    token = state.push("blockquote_open", "blockquote", 1)
    token.map = [start, line]
    state.push("blockquote_close", "blockquote", -1)
    state.line = line
    return True


def _read_line(state: StateBlock, line: int) -> str:
    """Return the text of a line behind its indent and what is around it."""
    return state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]
