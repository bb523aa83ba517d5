"""Code of the clients' scripts for docs/clients.md, which cog writes: what a page shows is what `make test-long NAME=conformance` runs."""

import ast
import re
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from conformance.clients import CLIENTS, SCRIPTS
from conformance.environments import name_version

_REGION: Final = re.compile(r"^ *(?:#|//) region (\w+)\n(.*?)^ *(?:#|//) endregion$", re.DOTALL | re.MULTILINE)
_NODE_IMPORT: Final = re.compile(r'^import \{ (.*) \} from "(.*)";$', re.MULTILINE)
_HARNESS: Final = ("cases", "node:assert/strict")


class SnippetError(Exception):
    """A page shows a region that no script has."""


def show(client: str, *names: str) -> str:
    """Return regions of a client's script as a block of Markdown, with the imports that they need."""
    script = SCRIPTS / CLIENTS[client]
    text = script.read_text()
    regions = {name: textwrap.dedent(body) for name, body in _REGION.findall(text)}
    if missing := set(names) - regions.keys():
        raise SnippetError(f"{script.name} has no region {', '.join(sorted(missing))}: {', '.join(regions)}")
    blocks = [regions[name].strip("\n") + "\n" for name in names]
    body = "\n".join(blocks)
    is_node = script.suffix == ".mjs"
    imports = "".join(f"{line}\n" for line in (_find_node_imports if is_node else _find_imports)(text, body))
    if is_node:
        return f"```js\n{imports}\n{body}```"
    return f"```python\n{_join_blocks([imports, *blocks] if imports else blocks)}```"


def _join_blocks(blocks: list[str]) -> str:
    """Return blocks of Python as one text: two lines are empty around a definition, as ruff formats pages as well."""
    text = blocks[0]
    for before, block in pairwise(blocks):
        is_defined = any(one.startswith(("class ", "def ", "@")) for one in (before, block))
        text += ("\n\n" if is_defined else "\n") + block
    return text


def list_versions() -> str:
    """Return the clients with their versions, for a sentence."""
    return ", ".join(name_version(client) for client in CLIENTS)


def _find_imports(text: str, body: str) -> Iterator[str]:
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and node.module not in _HARNESS:
            if names := [alias.name for alias in node.names if alias.name in used]:
                yield f"from {node.module} import {', '.join(names)}"
        elif isinstance(node, ast.Import):
            yield from (f"import {alias.name}" for alias in node.names if alias.name in used)


def _find_node_imports(text: str, body: str) -> Iterator[str]:
    for names, module in _NODE_IMPORT.findall(text):
        if used := [name for name in names.split(", ") if re.search(rf"\b{name}\b", body)]:
            yield f'import {{ {", ".join(used)} }} from "{module}";'
