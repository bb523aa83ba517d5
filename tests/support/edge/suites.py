"""Golden suites for `serve`: a part of the shipped one, and the same part with answers that no engine gives."""

from dataclasses import replace
from pathlib import Path

from r1plus_cli.local import SHIPPED_SUITES
from r1plus_contract.jsonable import dumps
from r1plus_contract.suites.suite import Suite, encode_items, load_suite, suite_hash

SHIPPED = SHIPPED_SUITES / "smollm2-edge-v1"
EACH = 8
"""Items of each stratum: a gate of seconds."""


def write_part(folder: Path, *, wrong: int = 0, whole: Path = SHIPPED) -> Path:
    """Write a suite of a few items of each stratum into `folder`; with `wrong` of each expecting what nobody says."""
    shipped: Suite = load_suite((whole / "suite.json").read_text(), (whole / "items.jsonl").read_text())
    items = []
    for stratum in sorted(shipped.strata()):
        part = [item for item in shipped.items if item.stratum == stratum][:EACH]
        items += [replace(item, answers=("nobody says this",)) for item in part[:wrong]] + part[wrong:]
    text = encode_items(sorted(items, key=lambda item: item.id))
    header = replace(
        shipped.header,
        name=folder.name,
        sha256=suite_hash(text, shipped.header.sampling, shipped.header.scorer_version),
        items=len(items),
    )
    folder.mkdir()
    (folder / "suite.json").write_text(dumps(header))
    (folder / "items.jsonl").write_text(text)
    return folder
