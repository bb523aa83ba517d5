"""How the promises' checks read the world: what a write does, and what holds now."""

import functools
import json
import re
from typing import Any, Final

import yaml

from r1plus_contract import names
from simulation.world import World
from support.paths import TESTS
from support.simulation.server import Change

Json = dict[str, Any]
Key = tuple[str, str]
NOBODY: Final = "nothing-promoted"
"""What a Service selects before the first promotion."""


def read_spec(world: World, key: Key) -> Json:
    """Return the spec of an R1PlusDeployment; empty: it is gone."""
    cr = world.read_cr(*key)
    return dict(cr["spec"]) if cr else {}


def is_checkpoint(change: Change) -> bool:
    """Whether a write stores a detector's checkpoint, or figures of a status: both go on for as long as probes do."""
    if change.before is None or change.after is None:
        return False
    before, after = (_strip_figures(one) for one in (change.before, change.after))
    return before == after


_FIGURES: Final = (names.ANNOTATION_POOL, names.ANNOTATION_DESIRED_HASH)


def _strip_figures(obj: Json) -> Json:
    meta = obj["metadata"]
    notes = {key: text for key, text in (meta.get("annotations") or {}).items() if key not in _FIGURES}
    conditions = [(c["type"], c["status"], c.get("reason")) for c in (obj.get("status") or {}).get("conditions") or ()]
    return {
        "spec": obj.get("spec"),
        "data": obj.get("data"),
        "notes": notes,
        "conditions": conditions,
        "labels": meta.get("labels"),
    }


def read_switch(change: Change, sender: str) -> tuple[Key, str, str] | None:
    """Return deployment, former and new revision where the operator has moved traffic; None elsewhere."""
    if not sender or change.resource.kind != "Service" or change.after is None:
        return None
    before, after = (
        (((one or {}).get("spec") or {}).get("selector") or {}).get(names.LABEL_REVISION, "")
        for one in (change.before, change.after)
    )
    meta = change.after["metadata"]
    if before == after or after in ("", NOBODY):
        return None
    return (meta["namespace"], (meta.get("labels") or {}).get(names.LABEL_DEPLOYMENT, meta["name"])), before, after


def read_start(change: Change, sender: str) -> tuple[Key, str] | None:
    """Return deployment and revision where the operator starts pods of a revision that had none; None elsewhere."""
    if not sender or change.resource.kind != "Deployment" or change.after is None:
        return None
    before = int(change.before["spec"].get("replicas", 1)) if change.before else 0
    if before or not int(change.after["spec"].get("replicas", 1)):
        return None
    meta = change.after["metadata"]
    labels = meta.get("labels") or {}
    return (meta["namespace"], labels.get(names.LABEL_DEPLOYMENT, "")), meta["name"]


def list_dropped(world: World) -> list[tuple[Key, list[str]]]:
    """Return of each deployment with `Rollback` the pods that serve, where all have dropped; else none."""
    found = []
    for start in world.schedule.starts:
        key = (start.namespace, start.name)
        spec = read_spec(world, key)
        accuracy, rollout = spec.get("accuracy", {}), spec.get("rollout", {})
        pods = []
        if accuracy.get("onBreach") == "Rollback" and not rollout.get("pinned") and not rollout.get("paused"):
            serving = world.find_serving(*key)
            ready = [
                p for p in world.list_pods(key[0], serving)
                if is_ready(p) and (p["metadata"].get("labels") or {}).get(names.LABEL_SERVING) == names.SERVING
            ]  # fmt: skip
            if ready and all(p["metadata"]["uid"] in world.oracle.dropped_at for p in ready):
                pods = sorted(p["metadata"]["name"] for p in ready)
        found.append((key, pods))
    return found


def read_followed_generation(cr: Json) -> int:
    """Return the newest generation that a pass of the operator has followed."""
    conditions = (cr.get("status") or {}).get("conditions") or ()
    return max((int(c.get("observedGeneration", 0)) for c in conditions), default=0)


def find_condition(cr: Json, kind: str) -> tuple[str, str]:
    """Return status and reason of a condition; empty: there is none."""
    conditions = (cr.get("status") or {}).get("conditions") or ()
    return next(((c["status"], c["reason"]) for c in conditions if c["type"] == kind), ("", ""))


def read_incident(world: World, key: Key) -> str:
    """Return the reason that the status gives for what is done about a drop; empty: none."""
    cr = world.read_cr(*key)
    return str((((cr or {}).get("status") or {}).get("incident") or {}).get("reason", ""))


@functools.cache
def list_reasons_without_alert() -> tuple[str, ...]:
    """Return the reasons that the alert on a blocked rollback leaves out."""
    rules = yaml.safe_load((TESTS.parent / "monitoring" / "rules" / "operator.yaml").read_text())
    text = json.dumps(rules)
    blocked = re.search(r'R1PlusRollbackBlocked.*?reason!~\\"([^"]*)\\"', text)
    return tuple(blocked[1].split("|")) if blocked else ()


def count_ready(world: World, namespace: str, revision: str) -> int:
    """Return how many pods of a revision are Ready."""
    return sum(map(is_ready, world.list_pods(namespace, revision)))


def is_ready(pod: Json) -> bool:
    """Whether a pod is Ready and stays."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return is_ready and "deletionTimestamp" not in pod["metadata"]
