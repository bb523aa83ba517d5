"""Storage of a golden suite: a folder, or a ConfigMap's manifest. Used by `r1plus suite`."""

import json
from pathlib import Path
from typing import Any

import yaml

from r1plus_cli.errors import CliError, UsageError
from r1plus_contract.monitor.settings import SUITE_FILE
from r1plus_contract.names import LABEL_SUITE
from r1plus_contract.suites.suite import Suite, SuiteError
from r1plus_contract.suites.suite_baseline import BaselineFigures, read_figures
from r1plus_contract.suites.suite_check import check
from r1plus_contract.suites.suite_files import MAX_BYTES, SuiteFiles
from r1plus_operator.config import read_suite_folder

MOST_MANIFEST = 4 * sum(MAX_BYTES.values())
"""Largest manifest in bytes: YAML writes some characters as four bytes."""
MANIFESTS = (".yaml", ".yml", ".json")


def load(path: Path) -> SuiteFiles:
    """Return the files of a suite, unchecked. Raise UsageError if there is none."""
    if path.is_dir():
        if not (path / SUITE_FILE).exists():
            raise UsageError(f"{path}: has no {SUITE_FILE}; give the folder of one suite, or a ConfigMap's manifest")
        return read_suite_folder(path)
    if path.suffix not in MANIFESTS or not path.exists():
        raise UsageError(f"{path}: neither a folder nor a manifest ({', '.join(MANIFESTS)})")
    return SuiteFiles.of(_read_data(path))


def load_sound(path: Path) -> tuple[Suite, SuiteFiles]:
    """Return a checked suite. Raise CliError with all its problems."""
    files = load(path)
    result = check(files)
    if result.suite is None:
        raise CliError(f"{path}: {'; '.join(result.problems)}")
    return result.suite, files


def load_baseline(path: Path) -> BaselineFigures:
    """Return the figures of a `baseline.json`."""
    try:
        return read_figures(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, SuiteError) as error:
        raise UsageError(f"{path}: {error}") from error


def find_existing(path: Path) -> list[str]:
    """Return why a new suite cannot be written there: verdicts refer to the existing one."""
    if (path / SUITE_FILE).exists() or path.is_file():
        return [f"--out {path}: already exists; a suite is never overwritten: use the next version"]
    return []


def save(path: Path, files: SuiteFiles) -> None:
    """Write a suite back to where `load` found it, or into a new folder. Optional files that it lacks are deleted."""
    if path.is_file():
        body = _read_manifest(path)
        others = {name: text for name, text in (body.get("data") or {}).items() if name not in MAX_BYTES}
        path.write_text(_dump({**body, "data": {**others, **files.texts()}}), encoding="utf-8")
        return
    path.mkdir(parents=True, exist_ok=True)
    texts = files.texts()
    for name in MAX_BYTES:
        if name in texts:
            (path / name).write_bytes(texts[name].encode())
        else:
            (path / name).unlink(missing_ok=True)


def render_manifest(files: SuiteFiles, namespace: str | None) -> str:
    """Return the ConfigMap of the namespace's own suite. Without a namespace, kubectl supplies it."""
    name = json.loads(files.header)["name"]
    metadata = {"name": name, "labels": {LABEL_SUITE: name}}
    if namespace:
        metadata["namespace"] = namespace
    return _dump({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files.texts()})


def _read_data(path: Path) -> dict[str, str]:
    data = _read_manifest(path).get("data")
    if not isinstance(data, dict) or not all(isinstance(text, str) for text in data.values()):
        raise UsageError(f"{path}: data: not an object of texts")
    return data


def _read_manifest(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size > MOST_MANIFEST:
        raise UsageError(f"{path}: {size} bytes, more than {MOST_MANIFEST}: a ConfigMap cannot be that large")
    try:
        body = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(body, dict) or body.get("kind") != "ConfigMap":
        raise UsageError(f"{path}: not one ConfigMap")
    return body


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Dumper(yaml.SafeDumper):
    """Writes multi-line texts as blocks, for readers; YAML quotes those that it cannot write so."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def _dump(body: dict[str, Any]) -> str:
    return str(yaml.dump(body, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**20))
