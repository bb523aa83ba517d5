"""What looks like arithmetic and is none: dates, versions, addresses, ranges of pages. A table for `expressions`.

The text is a stranger's, so repetitions that could be tried again at each character are bounded.
"""

import re
from collections.abc import Mapping
from typing import Final

LOOKALIKES: Final[Mapping[str, re.Pattern[str]]] = {
    "an address on the web": re.compile(r"\b[a-z][a-z0-9+.-]{0,32}://\S+|\bwww\.\S+", re.IGNORECASE),
    "an address for mail": re.compile(r"[^\s@]{1,64}@[^\s@]{1,64}\.\w{1,24}"),
    "a path": re.compile(
        r"(?<![\w)\]])~?(?:/[A-Za-z_][\w.-]*)+/?|\b[A-Za-z]:\\\S+|\b\w{1,32}(?:/\w{1,32}){2,8}\.\w{1,8}"
    ),
    "a date with hyphens": re.compile(r"\b\d{4}-\d{1,2}-\d{1,2}\b"),
    "a date with slashes": re.compile(r"\b\d{1,2}/\d{1,2}/\d{2,4}\b|\b\d{4}/\d{1,2}/\d{1,2}\b"),
    "a date with points": re.compile(r"\b\d{1,2}\.\d{1,2}\.\d{2,4}\b"),
    "years": re.compile(r"\b(?:19|20)\d\d\s*[-/\u2013]\s*(?:(?:19|20)\d\d|\d\d)\b"),
    "a time": re.compile(r"\b\d{1,2}:\d{2}(?::\d{2})?(?:\s*[-\u2013]\s*\d{1,2}:\d{2})?\b"),
    "a version or an address of a network": re.compile(r"\bv?\d+(?:\.\d+){2,}\S*"),
    "a phone number": re.compile(
        r"(?<![\w)])(?:\+|00)\d[\d ()/-]{6,24}\d|\b0\d{2,4}[ /-]\d[\d -]{4,16}\d\b|\b\d{3}-\d{4}\b"
    ),
    "groups of digits": re.compile(r"\b\d+(?:-\d+){2,}\b"),
    "a number of an order": re.compile(r"#\s*\d+(?:[-/]\d+)*|\b0\d+-\d+\b|\b\d+-0\d+\b"),
    "a name with a number": re.compile(
        r"\b(?=[A-Za-z]{0,32}\d*[A-Za-z]{2,})[A-Za-z]{1,32}[-+.]*\d[\w.-]*|\b[A-Z][-+]{1,2}\d+\b"
    ),
    "a processor": re.compile(r"\bx(?:86|64)(?:[-_]\d+)?\b"),
    "words with hyphens": re.compile(
        r"\b[A-Za-z]\w{0,64}_\w+\b|\b\w{0,32}[A-Za-z]{2}\w{0,32}(?:-\w{1,32})+\b"
        r"|\b\w{1,32}(?:-\w{0,32}[A-Za-z]{2}\w{0,32}){1,8}\b"
    ),
    "a range with a unit": re.compile(
        r"(?<![\d.^*/+=(-])\d+(?:\.\d+)?[-\u2013]\d+(?:\.\d+)?"
        r"(?=\s*(?:(?!(?:is|equals?|makes|gives|for|and|or|in|please|exactly|really|then|with)\b)[A-Za-z]{2,}|[%$\u20ac\u00a3]))",
        re.IGNORECASE,
    ),
    "a range after a word": re.compile(
        r"\b(?:pages?|pp?\.|chapters?|lines?|sections?|rooms?|items?|steps?|weeks?|days?|years?|ages?|score[ds]?|won|lost)"
        r"\s+\d+\s*[-/\u2013]\s*\d+",
        re.IGNORECASE,
    ),
    "an idiom": re.compile(r"\b(?:24/7|50/50|9/11|60/40|80/20|20/20)\b"),
    "an amount of money": re.compile(r"[$\u20ac\u00a3]\s?\d[\d,.]*(?:\s*[-\u2013]\s*[$\u20ac\u00a3]?\s?\d[\d,.]*)?"),
    "a sign of a list": re.compile(r"^[ \t]*(?:[-*+\u2022]|\d{1,3}[.)])(?=[ \t])", re.MULTILINE),
    "a number of a list in a line": re.compile(r"(?<=[.:;] )\d{1,2}[.)](?= [A-Za-z])"),
    "code": re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL),
}
"""What a text may have that is no expression. It is taken out before expressions are looked for."""
BREAK: Final = "\x00"
"""Stands for what was taken out: no expression goes across it."""


def mask_lookalikes(text: str) -> str:
    """Return a text of the same length without them."""
    text = text.replace(BREAK, " ")
    for pattern in LOOKALIKES.values():
        text = pattern.sub(lambda match: BREAK * len(match.group()), text)
    return text
