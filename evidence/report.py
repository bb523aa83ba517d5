"""What is stale, missing or failed, and in which order to measure again."""

import json
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from evidence.dependencies import list_dependencies
from evidence.records import FOLDER, RecordError, check_record, list_records, now, read_record
from evidence.repository import ROOT, changed_paths, is_below, list_files
from evidence.targets import HOME, Target, load_targets

LEAST_MINUTES: Final = 0.2
"""A target of seconds counts as this much, so that none is first only because it is short."""
PAGE: Final = re.compile(r"[A-Z]+\.md|docs/.+\.md")
"""The pages that cog writes figures into."""
FIGURE: Final = re.compile(r"""(?:duration|figure|origin|value)\(\s*["']([\w-]+)["']""")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known of a target's record on its machine."""

    target: Target
    machine: str
    state: str
    """`fresh`, `stale`, `failed`, `missing`, or `invalid` where a record cannot be believed."""
    reason: str = ""
    changed: tuple[str, ...] = ()
    """The files that it depends on and that changed since."""
    share: float = 1.0
    """`changed`, as a part of all that it depends on."""
    minutes: float = 0.0
    pages: tuple[str, ...] = ()
    """The pages that print its figures."""

    @property
    def name(self) -> str:
        """The target, with its machine where that is another than the usual one."""
        return self.target.name if self.machine == HOME else f"{self.target.name}@{self.machine}"

    @property
    def rank(self) -> tuple[bool, float]:
        """What comes first is measured first: failures, then doubt times pages for each minute."""
        return self.state != "failed", -self.share * (1 + len(self.pages)) / max(self.minutes, LEAST_MINUTES)


def judge_targets(root: Path = ROOT) -> list[Judgement]:
    """Return what is known of every target on its machine, and on other machines that have a record of it."""
    pages, machines = map_pages(root), sorted({HOME, *(file.parent.name for file in list_records())})
    pairs = ((target, machine) for target in load_targets().values() for machine in machines)
    return [
        judge_target(target, pages.get(target.name, ()), FOLDER / machine, root)
        for target, machine in pairs
        if machine == HOME or (FOLDER / machine / f"{target.name}.json").exists()
    ]


def judge_target(target: Target, pages: tuple[str, ...], folder: Path, root: Path = ROOT) -> Judgement:
    """Return what is known of a target on the machine whose records are in `folder`."""
    judgement = Judgement(target, folder.name, "missing", "no record", minutes=target.minutes, pages=pages)
    file = folder / f"{target.name}.json"
    if not file.exists():
        return judgement
    try:
        record = read_record(file)
        check_record(record, now(), root)
    except RecordError as error:
        return replace(judgement, state="invalid", reason=str(error))
    needs = list_dependencies(target.entry, target.also, root)
    try:
        paths = changed_paths(record.commit, root)
    except subprocess.CalledProcessError:
        return replace(
            judgement, state="invalid", reason=f"{record.commit[:8]} is not in this clone: fetch its history"
        )
    named = [*target.entry, *target.also]
    # What was deleted is among no files of today.
    changed = tuple(sorted(path for path in paths if path in needs or is_below(path, named)))
    if record.transcribed_from:
        return replace(judgement, state="stale", reason="from before the ledger", changed=changed)
    judgement = replace(judgement, changed=changed, minutes=record.seconds / 60, reason="")
    if record.result == "FAILED":
        return replace(judgement, state="failed", reason=f"failed at {record.commit[:8]}")
    return replace(judgement, state="stale" if changed else "fresh", share=len(changed) / max(len(needs), 1))


def map_pages(root: Path = ROOT) -> dict[str, tuple[str, ...]]:
    """Return for each target the pages that print its figures."""
    pages: dict[str, tuple[str, ...]] = {}
    for path in list_files(root):
        if PAGE.fullmatch(path):
            for name in sorted(set(FIGURE.findall((root / path).read_text()))):
                pages[name] = (*pages.get(name, ()), path)
    return pages


def choose_refresh(judgements: Iterable[Judgement], minutes: float) -> list[Judgement]:
    """Return what to measure again within `minutes`, in this order."""
    chosen, left = list[Judgement](), minutes
    here = (one for one in judgements if one.state != "fresh" and one.machine == HOME)
    for one in sorted(here, key=lambda one: one.rank):
        if one.minutes <= left:
            chosen.append(one)
            left -= one.minutes
    return chosen


def check_records(folder: Path = FOLDER, root: Path = ROOT) -> list[str]:
    """Return what is wrong with records: edited, cut, of the future, of another branch, or of no target."""
    targets, wrong = load_targets(), list[str]()
    for file in list_records(folder):
        try:
            record = read_record(file)
            check_record(record, now(), root)
        except RecordError as error:
            wrong.append(str(error))
            continue
        if record.target not in targets:
            wrong.append(
                f"{file.relative_to(root)}: targets.toml has no table [{record.target}]: add it, or remove the record"
            )
    for name, pages in map_pages(root).items():
        if name not in targets:
            wrong.append(f"{', '.join(pages)}: prints figures of {name}, and targets.toml has no such table")
    return wrong


def print_report(judgements: Sequence[Judgement], minutes: float, flakes_open: int) -> list[Judgement]:
    """Print a line for each target, the order to measure in, and a JSON line; returns that order."""
    for one in sorted(judgements, key=lambda one: one.rank):
        rooms = sorted({"/".join(path.split("/")[:2]) for path in one.changed})
        share = f"{one.share:4.0%} {len(one.changed):4} files" if one.changed else " " * 15
        print(
            f"{one.name:26} {one.state:8} {share} {one.minutes:6.1f} min  {len(one.pages)} pages"
            f"  {one.reason or ', '.join(rooms[:4])}"
        )
    order = choose_refresh(judgements, minutes)
    print(f"\nIn {minutes:.0f} minutes, in this order:")
    for one in order:
        print(f"  {one.target.command}")
    names = {state: [one.name for one in judgements if one.state == state] for state in _STATES}
    print(json.dumps({**names, "flakes_open": flakes_open, "refresh": [one.target.command for one in order]}))
    return order


_STATES = ("stale", "missing", "failed", "invalid")
