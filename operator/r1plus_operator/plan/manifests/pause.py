"""A paused deployment: what the operator still writes, and the label that lets the platform team edit the rest."""

from collections.abc import Mapping
from typing import Final

from r1plus_contract.names import LABEL_PAUSED
from r1plus_operator.plan.observation import Json

EDITABLE: Final = frozenset({"Deployment", "Service", "PodDisruptionBudget"})
"""Kinds that people may edit during a pause, and that the operator does not write. Policy `children` lists them."""
_OF_REVISIONS: Final = frozenset({"ControllerRevision", "ConfigMap"})
Patch = tuple[str, str, tuple[Json, ...]]
"""(kind, name, JSON patch)."""


def is_written(obj: Json, live: Json | None) -> bool:
    """Whether the operator writes an object during a pause: network policies, alerts, and data of revisions."""
    return obj["kind"] not in EDITABLE and (live is not None or obj["kind"] not in _OF_REVISIONS)


def build_mark_patches(children: Mapping[tuple[str, str], Json], *, paused: bool) -> tuple[Patch, ...]:
    """Return the patches that add the pause label to editable objects, or remove it."""
    path = f"/metadata/labels/{LABEL_PAUSED.replace('/', '~1')}"
    patch: Json = {"op": "add", "path": path, "value": "true"} if paused else {"op": "remove", "path": path}
    return tuple(
        (kind, name, (patch,))
        for (kind, name), live in children.items()
        if kind in EDITABLE and (LABEL_PAUSED in (live["metadata"].get("labels") or {})) is not paused
    )
