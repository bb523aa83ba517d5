"""R1PlusDeployments as the API server returns them, for the command line's tests."""

from typing import Any

Json = dict[str, Any]


def condition(kind: str, status: str, reason: str, message: str = "") -> Json:
    """One condition, as in status.conditions."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-11-24T17:00:00Z",
    }


READY = condition("Ready", "True", "Serving")
VERIFIED = condition("QualityVerified", "True", "GatePassed", "lost 1 of 206 items, 4 allowed")


def cr(*conditions: Json, generation: int = 1, observed: int = 1, **status: Any) -> Json:
    """A deployment with a status; without conditions it is one that no operator has seen."""
    found: Json = {
        "apiVersion": "r1plus.ai/v1alpha1",
        "kind": "R1PlusDeployment",
        "metadata": {
            "name": "credit",
            "namespace": "team-credit",
            "generation": generation,
            "creationTimestamp": "2026-11-24T16:00:00Z",
        },
        "spec": {"tier": "full", "replicas": 1, "accuracy": {"threshold": 0.98, "gate": "Enforce"}},
    }
    if conditions:
        found["status"] = {"observedGeneration": observed, "conditions": list(conditions), **status}
    return found
