"""What Flux, Helm 4 and others take an object for: kstatus, as sigs.k8s.io/cli-utils v0.37.2 computes it for a custom resource.

A transcription of `pkg/kstatus/status`: `checkGenericProperties`, then `checkReadyCondition`. A test holds it to the library.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Kstatus(StrEnum):
    """The statuses that kstatus computes."""

    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    CURRENT = "Current"
    TERMINATING = "Terminating"


def compute_kstatus(obj: Mapping[str, Any]) -> Kstatus:
    """Return the kstatus of a custom resource."""
    meta, status = obj["metadata"], obj.get("status") or {}
    if meta.get("deletionTimestamp"):
        return Kstatus.TERMINATING
    if "generation" in meta and status.get("observedGeneration", meta["generation"]) != meta["generation"]:
        return Kstatus.IN_PROGRESS
    conditions = [(one.get("type"), one.get("status")) for one in status.get("conditions") or ()]
    for condition in conditions:  # Where both are True, the first decides.
        if condition == ("Reconciling", "True"):
            return Kstatus.IN_PROGRESS
        if condition == ("Stalled", "True"):
            return Kstatus.FAILED
    ready = next((state for kind, state in conditions if kind == "Ready"), "True")
    return Kstatus.CURRENT if ready == "True" else Kstatus.IN_PROGRESS
