"""Texts whose ids are compared: those of the embedding's test, and code, numbers and white space in addition."""

from support.embedding.texts import list_texts

_CODE = (
    "def add(a: int, b: int) -> int:\n    return a + b\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += x[i];\n}\r\n",
    "SELECT name, COUNT(*) FROM t WHERE id >= 1000 GROUP BY name;",
    'printf("%5.2f\\n", 3.14159);',
    '<div class="a">Tom &amp; Jerry\'s</div>',
    "const f = async ({a, ...rest}) => await g`x${a}`;",
    "git commit -m 'fix' && git push --force-with-lease",
    "https://example.com/a/b?c=d&e=%20#f",
    "x**2 + y//3 != z%4 | ~w ^ 0xFF << 1e-10",
    '#!/bin/sh\nset -eu\n\n\n  exec "$@"   \n',
)
_NUMBERS = (*(str(7**n) for n in range(1, 40, 3)), "1,234,567.89", "٣٤٥", "½ ² Ⅷ", "2026-11-28T18:00:00Z")
_SPACES = ("a  b   c    d", "\n\n\nx", "x \n y\n\n z", "\t\tx", " x", "x ", "\u00a0x\u3000y", "I'LL we'Ve DON'T it's'")


def list_tokenizer_texts() -> list[str]:
    """Return the texts, each once."""
    return list(dict.fromkeys((*list_texts(), *_CODE, *_NUMBERS, *_SPACES)))
