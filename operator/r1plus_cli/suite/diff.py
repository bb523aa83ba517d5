"""`r1plus suite diff`: differences of two suites, or of two baselines, and what must be scored again."""

from collections.abc import Iterator, Mapping
from dataclasses import fields

from r1plus_contract.jsonable import to_camel_case
from r1plus_contract.suites.suite import Item, Suite
from r1plus_contract.suites.suite_baseline import BaselineFigures, Measurement

MAX_IDS = 20
"""Most ids in a line."""


def compare_suites(old: Suite, new: Suite) -> Iterator[str]:
    """Yield a line per difference; none if only parts outside the hash differ."""
    before, after = ({item.id: item for item in suite.items} for suite in (old, new))
    added, removed = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
    changed_items = {
        name: _list_changed_fields(before[name], after[name]) for name in sorted(before.keys() & after.keys())
    }
    changed_items = {name: what for name, what in changed_items.items() if what}
    if added:
        yield f"added {len(added)}: {_abbreviate(added)}"
    if removed:
        yield f"removed {len(removed)}: {_abbreviate(removed)}"
    if changed_items:
        names = [f"{name} ({what})" for name, what in changed_items.items()]
        yield f"changed {len(names)}: {_abbreviate(names)}"
    for name in sorted({*old.strata(), *new.strata()}):
        counts = old.strata().get(name, 0), new.strata().get(name, 0)
        if counts[0] != counts[1]:
            yield f"stratum {name}: {counts[0]} -> {counts[1]} items"
    evaluation_changes = [what for what in (*_compare_sampling(old, new), *_compare_scorer(old, new)) if what]
    yield from evaluation_changes
    if old.header.sha256 == new.header.sha256:
        return
    to_score = sorted(after) if evaluation_changes else sorted([*added, *changed_items])
    reason = (
        "items are asked or scored differently" if evaluation_changes else "the others are asked and scored as before"
    )
    yield f"to score again: {len(to_score)} of {len(after)} items, since {reason}" + (
        f": {_abbreviate(to_score)}" if to_score else ""
    )
    yield "verdicts: every revision is gated again, since a verdict belongs to the hash of the whole suite"


def compare_figures(old: BaselineFigures, new: BaselineFigures) -> Iterator[str]:
    """Yield a line per engine and condition that differs."""
    before, after = _index_figures(old), _index_figures(new)
    for key in sorted({*before, *after}):
        name = ", ".join(key)
        if key not in after:
            yield f"{name}: no longer measured"
        elif key not in before:
            yield f"{name}: {after[key].correct} of {after[key].items} right, not measured before"
        elif _key_figures(before[key]) != _key_figures(after[key]):
            yield f"{name}: {_format_change(before[key], after[key])}"


def _key_figures(one: Measurement) -> tuple[int, int, tuple[str, ...]]:
    return one.correct, one.items, one.lost


def _format_change(before: Measurement, after: Measurement) -> str:
    text = f"{before.correct} of {before.items} -> {after.correct} of {after.items} right"
    for word, ids in (("lost", set(after.lost) - set(before.lost)), ("regained", set(before.lost) - set(after.lost))):
        text += f"; {word} {_abbreviate(sorted(ids))}" if ids else ""
    return text


def _index_figures(figures: BaselineFigures) -> Mapping[tuple[str, str], Measurement]:
    """Return figures by engine and condition; the later of two counts."""
    return {(one.engine, one.condition): one for one in (*figures.cross, *figures.served, *figures.baseline)}


def _list_changed_fields(before: Item, after: Item) -> str:
    names = [f.name for f in fields(Item) if getattr(before, f.name) != getattr(after, f.name)]
    return ", ".join(names)


def _compare_sampling(old: Suite, new: Suite) -> Iterator[str]:
    before, after = old.header.sampling, new.header.sampling
    for field in fields(before):
        values = getattr(before, field.name), getattr(after, field.name)
        if values[0] != values[1]:
            yield f"sampling.{to_camel_case(field.name)}: {values[0]!r} -> {values[1]!r}"


def _compare_scorer(old: Suite, new: Suite) -> Iterator[str]:
    versions = old.header.scorer_version, new.header.scorer_version
    if versions[0] != versions[1]:
        yield f"scorerVersion: {versions[0]} -> {versions[1]}"


def _abbreviate(names: list[str]) -> str:
    more = f" and {len(names) - MAX_IDS} more" if len(names) > MAX_IDS else ""
    return ", ".join(names[:MAX_IDS]) + more
