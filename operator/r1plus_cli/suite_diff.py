"""`r1plus suite diff`: what two suites, or what was measured on them, have in common; what must be scored again."""

from collections.abc import Iterator, Mapping
from dataclasses import fields

from r1plus_contract.jsonable import to_camel_case
from r1plus_contract.suite import Item, Suite
from r1plus_contract.suite_baseline import BaselineFigures, Measurement

SHOWN = 20
"""Ids that a line names."""


def suites(old: Suite, new: Suite) -> Iterator[str]:
    """A line per difference; none where both are the same but for what the hash does not cover."""
    before, after = ({item.id: item for item in suite.items} for suite in (old, new))
    added, removed = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
    changed = {name: _fields(before[name], after[name]) for name in sorted(before.keys() & after.keys())}
    changed = {name: what for name, what in changed.items() if what}
    if added:
        yield f"added {len(added)}: {_some(added)}"
    if removed:
        yield f"removed {len(removed)}: {_some(removed)}"
    if changed:
        yield f"changed {len(changed)}: {_some([f'{name} ({what})' for name, what in changed.items()])}"
    for name in sorted({*old.strata(), *new.strata()}):
        counts = old.strata().get(name, 0), new.strata().get(name, 0)
        if counts[0] != counts[1]:
            yield f"stratum {name}: {counts[0]} -> {counts[1]} items"
    asked = [what for what in (*_sampling(old, new), *_scorer(old, new)) if what]
    yield from asked
    if old.header.sha256 == new.header.sha256:
        return
    stale = sorted(after) if asked else sorted([*added, *changed])
    why = "items are asked or scored otherwise" if asked else "the others are asked and scored as before"
    yield f"to score again: {len(stale)} of {len(after)} items, since {why}" + (f": {_some(stale)}" if stale else "")
    yield "verdicts: every revision is gated anew, since a verdict belongs to the whole suite's hash"


def figures(old: BaselineFigures, new: BaselineFigures) -> Iterator[str]:
    """A line per engine and condition that differs."""
    before, after = _measured(old), _measured(new)
    for key in sorted({*before, *after}):
        name = ", ".join(key)
        if key not in after:
            yield f"{name}: no longer measured"
        elif key not in before:
            yield f"{name}: {after[key].correct} of {after[key].items} right, not measured before"
        elif _figures(before[key]) != _figures(after[key]):
            yield f"{name}: {_one(before[key], after[key])}"


def _figures(one: Measurement) -> tuple[int, int, tuple[str, ...]]:
    return one.correct, one.items, one.lost


def _one(before: Measurement, after: Measurement) -> str:
    text = f"{before.correct} of {before.items} -> {after.correct} of {after.items} right"
    for word, ids in (("lost", set(after.lost) - set(before.lost)), ("regained", set(before.lost) - set(after.lost))):
        text += f"; {word} {_some(sorted(ids))}" if ids else ""
    return text


def _measured(found: BaselineFigures) -> Mapping[tuple[str, str], Measurement]:
    """By engine and condition; of the same twice, the later."""
    return {(one.engine, one.condition): one for one in (*found.cross, *found.served, *found.baseline)}


def _fields(before: Item, after: Item) -> str:
    names = [f.name for f in fields(Item) if getattr(before, f.name) != getattr(after, f.name)]
    return ", ".join(names)


def _sampling(old: Suite, new: Suite) -> Iterator[str]:
    before, after = old.header.sampling, new.header.sampling
    for field in fields(before):
        values = getattr(before, field.name), getattr(after, field.name)
        if values[0] != values[1]:
            yield f"sampling.{to_camel_case(field.name)}: {values[0]!r} -> {values[1]!r}"


def _scorer(old: Suite, new: Suite) -> Iterator[str]:
    versions = old.header.scorer_version, new.header.scorer_version
    if versions[0] != versions[1]:
        yield f"scorerVersion: {versions[0]} -> {versions[1]}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
