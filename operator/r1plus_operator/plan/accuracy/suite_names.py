"""Which golden suites a pass may need, before it is known which it does: only these are fetched."""

from collections.abc import Iterable, Mapping

from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.revision.storage import read_revisions


def list_suite_names(cr: Json, engines: Iterable[Engine], children: Mapping[tuple[str, str], Json]) -> frozenset[str]:
    """Return the names of the spec's suite, by default each engine's, and of the suites with recorded verdicts."""
    accuracy = (cr.get("spec") or {}).get("accuracy")
    name = accuracy.get("suite") if isinstance(accuracy, dict) else None
    names = {name} if name and isinstance(name, str) else {engine.spec.reference.suite for engine in engines}
    revisions = read_revisions(children).values()
    return frozenset(names | {gate.suite for revision in revisions for gate in revision.verdicts})
