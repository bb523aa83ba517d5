"""Compare two listings of test cases: `python -m support.cases BEFORE AFTER [--mapping FILE...]`.

A listing is what `pytest --collect-only -q` prints. A line of a mapping file is `old id<TAB>new id`, or
`old id<TAB>guarded by: id` for a case that repeated another one; an old id that was split has a line for each new id.
Where the old id is still there, its new ids must be there too.
Exits with 1 if an id is lost without a mapping, or a mapping names an id that AFTER lacks.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

GUARDED_BY = "guarded by:"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What became of the cases of a listing."""

    before: Sequence[str]
    after: Sequence[str]
    renamed: Sequence[str]
    """Ids of `before` that mappings lead only to ids of `after`."""
    guarded: Sequence[str]
    """Ids of `before` that only repeated another case."""
    lost: Sequence[str]
    new: Sequence[str]
    """Ids of `after` that are neither in `before` nor the target of a mapping."""
    wrong_mappings: Sequence[str]

    @property
    def is_complete(self) -> bool:
        """Whether every case of `before` has a case in `after`."""
        return not self.lost and not self.wrong_mappings


def read_ids(listing: Path) -> list[str]:
    """Return the ids of a listing, without pytest's last lines and warnings. Raises SystemExit if one occurs twice."""
    # Below the ids is a blank line, then a summary; an id starts with a file, and may contain anything.
    ids = [line for line in listing.read_text().splitlines() if ".py::" in line.split(" ", 1)[0]]
    if twice := [test for test, times in Counter(ids).items() if times > 1]:
        raise SystemExit(f"{listing}: listed twice: {twice[0]}")
    if not ids:
        raise SystemExit(f"{listing}: no test ids; make it with pytest --collect-only -q")
    return ids


def read_mappings(files: Iterable[Path]) -> dict[str, list[str]]:
    """Return old id -> its new ids, or `guarded by: id`.

    Raises SystemExit where a line has no tab, or an id has both a new id and a guard.
    """
    mappings: dict[str, list[str]] = {}
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if not line.strip():
                continue
            old, tab, new = line.partition("\t")
            if not tab or not new.strip():
                raise SystemExit(f"{file}:{number}: not `old id<TAB>new id`: {line}")
            targets = mappings.setdefault(old, [])
            if new.strip() not in targets:
                targets.append(new.strip())
            if len({target.startswith(GUARDED_BY) for target in targets}) > 1:
                raise SystemExit(f"{file}:{number}: both renamed and guarded: {old}")
    return mappings


def compare_cases(before: Sequence[str], after: Sequence[str], mappings: dict[str, list[str]]) -> Comparison:
    """Follow each id of `before` to `after`: under its own name, by a mapping, or by several in turn."""
    now = set(after)
    renamed: list[str] = []
    guarded: list[str] = []
    lost: list[str] = []
    wrong: list[str] = []
    known = set(before)
    for old in before:
        if old not in mappings:
            if old not in now:
                lost.append(old)
            continue
        targets = _follow(old, mappings, now)
        known.update(targets)
        if missing := [target for target in targets if target not in now]:
            wrong.extend(f"{old}\t{target}" for target in missing)
        elif old not in now:
            (guarded if all(targets.values()) else renamed).append(old)
    new = [test for test in after if test not in known]
    return Comparison(before, after, renamed, guarded, lost, new, wrong)


def _follow(test: str, mappings: dict[str, list[str]], now: set[str], passed: tuple[str, ...] = ()) -> dict[str, bool]:
    """Return the ids that `test` leads to, each with whether a `guarded by` was on every way there."""
    if (passed and test in now) or test not in mappings or test in passed:
        return {test: False}
    ends: dict[str, bool] = {}
    for target in mappings[test]:
        guard = target.removeprefix(GUARDED_BY).strip()
        for end, is_guarded in _follow(guard, mappings, now, (*passed, test)).items():
            ends[end] = ends.get(end, True) and (is_guarded or guard != target)
    return ends


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; return 1 if a case is lost."""
    parser = argparse.ArgumentParser(prog="python -m support.cases", description="Compare two listings of test cases.")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--mapping", type=Path, nargs="+", action="extend", default=[], metavar="FILE")
    options = parser.parse_args(arguments)
    found = compare_cases(read_ids(options.before), read_ids(options.after), read_mappings(options.mapping))
    for title, ids in (
        ("Lost", found.lost),
        ("Mapped to an id that is missing", found.wrong_mappings),
        ("New", found.new),
    ):
        for test in ids:
            print(f"{title}: {test}")
    kept = len(set(found.before).intersection(found.after))
    print(
        f"{len(found.before)} cases before, {len(found.after)} after: {kept} kept, {len(found.renamed)} renamed, "
        f"{len(found.guarded)} guarded by another, {len(found.lost)} lost, {len(found.wrong_mappings)} wrong mappings, "
        f"{len(found.new)} new"
    )
    return 0 if found.is_complete else 1


if __name__ == "__main__":
    sys.exit(main())
