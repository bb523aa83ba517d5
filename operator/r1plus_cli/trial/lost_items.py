"""What a refused engine answers wrong: items of the golden suite, by the verdict that its revision keeps."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from r1plus_cli.local import SHIPPED_SUITES, load_suites
from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.monitor.settings import KnownVerdicts
from r1plus_contract.names import ANNOTATION_VERDICT
from r1plus_contract.suites.suite import Item
from r1plus_contract.verdict import GateReport, Verdict


@dataclass(frozen=True, slots=True)
class LostItem:
    """An item that was answered wrong."""

    id: str
    prompt: str
    answer: str
    """One that is right; empty where the suite is not at hand."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The verdict Fail of a revision's gate."""

    revision: str
    items: int
    lost: int
    """Items lost, of `items`."""
    examples: tuple[LostItem, ...]


def find_refusal(revisions: Iterable[dict[str, Any]], most: int, suites: Path = SHIPPED_SUITES) -> Refusal | None:
    """Return the newest refused revision with `most` of its lost items; None if none was refused."""
    for live in sorted(revisions, key=lambda one: -int(one.get("revision", 0))):
        for gate in reversed(_read_verdicts(live)):
            if gate.verdict is Verdict.FAIL:
                examples = _describe_items(gate.suite, gate.lost_items, most, suites)
                return Refusal(str(live["metadata"]["name"]), gate.items, gate.lost, examples)
    return None


def _read_verdicts(live: dict[str, Any]) -> tuple[GateReport, ...]:
    """Return the verdicts that a ControllerRevision keeps, the newest last; none if they cannot be read."""
    text = (live["metadata"].get("annotations") or {}).get(ANNOTATION_VERDICT, "")
    try:
        return loads(KnownVerdicts, text, tolerant=True).reports if text else ()
    except ContractError:
        return ()


def _describe_items(suite: str, ids: Sequence[str], most: int, suites: Path) -> tuple[LostItem, ...]:
    """Return items of as many strata as possible, the shortest prompts first: they are read at a glance."""
    source = load_suites(suites).get(suite)
    known = {item.id: item for item in source.suite.items} if source and source.suite else {}
    found = sorted((known[one] for one in ids if one in known), key=lambda item: len(item.prompt))
    by_stratum: dict[str, list[Item]] = defaultdict(list)
    for item in found:
        by_stratum[item.stratum].append(item)
    in_turn = [item for turn in zip_longest(*by_stratum.values()) for item in turn if item is not None]
    examples = [LostItem(item.id, item.prompt, item.answers[0]) for item in in_turn]
    return (*examples, *(LostItem(one, "", "") for one in ids if one not in known))[:most]
