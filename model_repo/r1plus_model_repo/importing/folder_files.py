"""What the readers of folders share: untrusted JSON, links that lead out of the folder, typed values, templates."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from r1plus_model_repo.importing import chat_template
from r1plus_model_repo.importing.model import ImportFindings

MOST_JSON_BYTES: Final = 64 * 2**20
"""The largest published tokenizer.json files have 35 MiB."""
MOST_CONTAINERS: Final = 2**21
"""Lists and objects in a file, which take far more memory than their two bytes. The largest published vocabularies have
600,000 merges."""
CONFIG, TEMPLATE, TOKENIZER_CONFIG = "config.json", "chat_template.jinja", "tokenizer_config.json"
GENERATION_CONFIG, SPECIAL_TOKENS = "generation_config.json", "special_tokens_map.json"


def read_json(folder: Path, name: str, findings: ImportFindings) -> Mapping[str, Any]:
    """Read the JSON object in the file `name`. Return an empty one if there is no such file or it is not an object."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes, at most {MOST_JSON_BYTES} are read")
        text = path.read_bytes()
        if (count := text.count(b"[") + text.count(b"{")) > MOST_CONTAINERS:
            raise ValueError(f"{count} lists and objects, at most {MOST_CONTAINERS} are read")
        content = json.loads(text.decode())
    except (OSError, ValueError, RecursionError) as error:
        findings.problems.append(f"{name}: not JSON: {error}; get the file again")
        return {}
    if isinstance(content, dict):
        return content
    findings.problems.append(f"{name}: not a JSON object; get the file again")
    return {}


def check_links(folder: Path, names: Iterable[str], findings: ImportFindings) -> None:
    """Reject links that lead out of the folder: the link's author would choose which file is published."""
    root = folder.resolve()
    for name in names:
        path = folder / name
        if path.exists() or path.is_symlink():
            try:
                target = path.resolve()
            except (OSError, RuntimeError):  # Python 3.11 raises the second.
                findings.problems.append(f"{name}: is a link that leads to itself; put the file itself there")
                continue
            if not target.is_relative_to(root):
                link_target = path.readlink() if path.is_symlink() else target
                findings.problems.append(
                    f"{name}: is a link to {link_target}, outside the folder; put the file itself there"
                )
            elif not target.exists():
                findings.problems.append(
                    f"{name}: is a link to {path.readlink()}, which does not exist; put the file itself there"
                )


def check_template(folder: Path, findings: ImportFindings, prefix: str = "", *, is_optional: bool = False) -> None:
    """Check the chat template of the tokenizer whose files have the prefix. `is_optional`: another file may have it."""
    name, text = prefix + TEMPLATE, None
    if (folder / name).is_file():
        with (folder / name).open("rb") as stream:
            data = stream.read(chat_template.MOST_BYTES + 1)
        text = data.decode(errors="replace")
        if len(data) <= chat_template.MOST_BYTES and text.encode() != data:
            findings.problems.append(f"{name}: is not UTF-8; get the file again")
            return
    else:
        name = prefix + TOKENIZER_CONFIG
        text = _select_default(read_json(folder, name, findings).get("chat_template"))
    if isinstance(text, str):
        problem = chat_template.find_problem(text)
    else:
        problem = None if is_optional else "no chat template, so a prompt cannot be built; add the model's " + TEMPLATE
    if problem:
        findings.problems.append(f"{name}: {problem}")


def _select_default(templates: Any) -> Any:
    """Return the template named `default` of a list of named ones; anything else as it is."""
    if not isinstance(templates, list):
        return templates
    return next(
        (item.get("template") for item in templates if isinstance(item, dict) and item.get("name") == "default"), None
    )


class Values:
    """Typed values of a JSON object called `name`. A missing or impossible value adds a problem and reads as 0."""

    def __init__(self, fields: Mapping[str, Any], name: str, findings: ImportFindings) -> None:
        self.fields = fields
        self._name = name
        self._findings = findings

    def add_problem(self, key: str, what: str, remedy: str = "get the file again") -> None:
        """Record what is wrong with the value of `key`."""
        self._findings.problems.append(f"{self._name}: {key}: {what}; {remedy}")

    def get_int(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """Return a whole number within its limits, or the default if it is missing or null."""
        value = self.fields.get(key)
        if value is None and default is not None:
            return default
        if value is None:
            self.add_problem(key, "missing, so the model's shape is not known")
            return 0
        if type(value) is not int or not least <= value <= most:
            self.add_problem(key, f"{value!r:.40} is not a whole number from {least} to {most}")
            return 0
        return value

    def get_object(self, key: str) -> "Values":
        """Return the object at `key`; an empty one if there is none."""
        value = self.fields.get(key)
        if value is not None and not isinstance(value, dict):
            self.add_problem(key, f"{value!r:.40} is not an object")
        return Values(value if isinstance(value, dict) else {}, f"{self._name}: {key}", self._findings)
