"""Which golden suites a pass may need, before it is known which it does: only these are fetched."""

from collections.abc import Iterable, Mapping

from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.revision.record import read_revisions


def list_suite_names(cr: Json, engines: Iterable[Engine], children: Mapping[tuple[str, str], Json]) -> frozenset[str]:
    """Return the names of what the spec asks for, by default each engine's suite, and of what was passed before."""
    accuracy = (cr.get("spec") or {}).get("accuracy")
    asked = accuracy.get("suite") if isinstance(accuracy, dict) else None
    wanted = {asked} if asked and isinstance(asked, str) else {engine.spec.reference.suite for engine in engines}
    return frozenset(
        wanted | {gate.suite for revision in read_revisions(children).values() for gate in revision.verdicts}
    )
