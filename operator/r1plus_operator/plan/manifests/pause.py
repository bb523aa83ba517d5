"""A paused deployment: what is still written, and the mark that lets the platform team edit the rest."""

from collections.abc import Mapping
from typing import Final

from r1plus_contract.names import LABEL_PAUSED
from r1plus_operator.plan.observation import Json

EDITABLE: Final = frozenset({"Deployment", "Service", "PodDisruptionBudget"})
"""Kinds that people may change while it is paused, and that the operator leaves alone; policy `children` knows them."""
_OF_REVISIONS: Final = frozenset({"ControllerRevision", "ConfigMap"})
Patch = tuple[str, str, tuple[Json, ...]]
"""(kind, name, JSON patch)."""


def is_written(obj: Json, live: Json | None) -> bool:
    """Return whether an object is written while paused: walls, alerts, and what is known of revisions."""
    return obj["kind"] not in EDITABLE and (live is not None or obj["kind"] not in _OF_REVISIONS)


def mark(children: Mapping[tuple[str, str], Json], *, paused: bool) -> tuple[Patch, ...]:
    """Return the patches that put the label of a pause on what may be edited, or take it off again."""
    path = f"/metadata/labels/{LABEL_PAUSED.replace('/', '~1')}"
    patch: Json = {"op": "add", "path": path, "value": "true"} if paused else {"op": "remove", "path": path}
    return tuple(
        (kind, name, (patch,))
        for (kind, name), live in children.items()
        if kind in EDITABLE and (LABEL_PAUSED in (live["metadata"].get("labels") or {})) is not paused
    )
