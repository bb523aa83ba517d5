"""What the readers of folders share: JSON that nobody vouches for, links that lead out, typed values, templates."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from r1plus_model_repo.importing import chat_template
from r1plus_model_repo.importing.model import Findings

MOST_JSON_BYTES: Final = 64 * 2**20
"""The largest published tokenizer.json have 35 MiB."""
CONFIG, TEMPLATE, TOKENIZER_CONFIG = "config.json", "chat_template.jinja", "tokenizer_config.json"
GENERATION_CONFIG, SPECIAL_TOKENS = "generation_config.json", "special_tokens_map.json"


def read_json(folder: Path, name: str, found: Findings) -> Mapping[str, Any]:
    """The JSON object in the file `name` of the folder; empty where there is no such file, or no such object."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes, at most {MOST_JSON_BYTES} are read")
        said = json.loads(path.read_bytes().decode())
    except (OSError, ValueError, RecursionError) as error:
        found.problems.append(f"{name}: not JSON: {error}; get the file again")
        return {}
    if isinstance(said, dict):
        return said
    found.problems.append(f"{name}: no JSON object; get the file again")
    return {}


def check_links(folder: Path, names: Iterable[str], found: Findings) -> None:
    """No file that is taken may lie elsewhere: whoever wrote the link would choose what is published."""
    root = folder.resolve()
    for name in names:
        path = folder / name
        if path.exists() or path.is_symlink():
            target = path.resolve()
            if not target.is_relative_to(root):
                shown = path.readlink() if path.is_symlink() else target
                found.problems.append(f"{name}: is a link to {shown}, out of the folder; put the file there")
            elif not target.exists():
                found.problems.append(f"{name}: is a link to {path.readlink()}, which is not there; put the file there")


def check_template(folder: Path, found: Findings, prefix: str = "", *, elsewhere: bool = False) -> None:
    """The chat template beside a tokenizer's files, `prefix` before their names; `elsewhere`: it may be in others."""
    name, text = prefix + TEMPLATE, None
    if (folder / name).is_file():
        with (folder / name).open("rb") as stream:
            text = stream.read(chat_template.MOST_BYTES + 1).decode(errors="replace")
    else:
        name = prefix + TOKENIZER_CONFIG
        text = _default(read_json(folder, name, found).get("chat_template"))
    if isinstance(text, str):
        wrong = chat_template.problem(text)
    else:
        wrong = None if elsewhere else "no chat template, so no question could be put; add the model's " + TEMPLATE
    if wrong:
        found.problems.append(f"{name}: {wrong}")


def _default(said: Any) -> Any:
    """Of several templates by name the one that is used where nobody asks for another."""
    if not isinstance(said, list):
        return said
    return next(
        (item.get("template") for item in said if isinstance(item, dict) and item.get("name") == "default"), None
    )


class Values:
    """Typed values of a JSON object that is called `name`; what is missing or impossible is a problem, and 0."""

    def __init__(self, said: Mapping[str, Any], name: str, found: Findings) -> None:
        self.said = said
        self._name = name
        self._found = found

    def problem(self, key: str, what: str, remedy: str = "get the file again") -> None:
        """Note what is wrong with the value of `key`."""
        self._found.problems.append(f"{self._name}: {key}: {what}; {remedy}")

    def whole(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """A whole number within its limits, or the default; null is as good as missing."""
        value = self.said.get(key)
        if value is None and default is not None:
            return default
        if value is None:
            self.problem(key, "missing, so the model's shape is not known")
            return 0
        if type(value) is not int or not least <= value <= most:
            self.problem(key, f"{value!r:.40} is no whole number from {least} to {most}")
            return 0
        return value

    def part(self, key: str) -> "Values":
        """An object within it; an empty one where there is none."""
        value = self.said.get(key)
        if value is not None and not isinstance(value, dict):
            self.problem(key, f"{value!r:.40} is no object")
        return Values(value if isinstance(value, dict) else {}, f"{self._name}: {key}", self._found)
