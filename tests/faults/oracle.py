"""What a run is judged by: the end state without what must differ, and a status that is true."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from faults.calls import Json
from faults.lane import Lane
from faults.rig import Rig
from r1plus_contract import names
from r1plus_operator.api import kinds
from support.apiserver.manifests import condition_of

CONVERGE_SECONDS = 60.0
"""From the heal on."""
_DIFFERS = frozenset({"uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "selfLink"})
_CHOSEN_BY_SERVER = frozenset({"clusterIP", "clusterIPs", "lastTransitionTime"})
_OF_THIS_RUN = frozenset({names.ANNOTATION_DESIRED_HASH, "accuracyConfigs"})
"""They cover the owner's uid, the tenant's name and the time of promotion; how many digests there were, the faults decide."""
_TIMES = frozenset({names.ANNOTATION_PROMOTED_AT})
_SPAN = re.compile(r"(?<=carried traffic for only )\d+ (?:s|min)\b")
"""How long the first revision served, in the status; the bake that it is compared with stays."""


def end_state(rig: Rig, namespace: str) -> Json:
    """Every child and the CR's status, normalised: the tenant's name and the CRs' uids are the run's own."""
    own = {namespace: "NAMESPACE"}
    own |= {cr["metadata"]["uid"]: "UID" for cr in rig.all(kinds.R1PLUS_DEPLOYMENT.kind, namespace)}
    found: Json = {}
    for res in (kinds.R1PLUS_DEPLOYMENT, *kinds.CHILDREN):
        for obj in rig.all(res.kind, namespace):
            found[f"{res.kind} {obj['metadata']['name']}"] = normal(obj, own)
    return found


def normal(value: Any, own: Mapping[str, str]) -> Any:
    """`value` without what every run has for itself: `own` names and uids, versions, times."""
    if isinstance(value, dict):
        kept = {k: normal(v, own) for k, v in value.items() if k not in _DIFFERS | _CHOSEN_BY_SERVER | _OF_THIS_RUN}
        return kept | dict.fromkeys(value.keys() & _TIMES, "a time")
    if isinstance(value, list):
        return [normal(item, own) for item in value]
    if isinstance(value, str):
        for name, instead in own.items():
            value = value.replace(name, instead)
        return _SPAN.sub("a while", value)
    return value


def differences(found: Any, reference: Any, where: str = "") -> list[str]:
    """Where two normalised states differ, a line each."""
    if isinstance(found, dict) and isinstance(reference, dict):
        lines = []
        for key in sorted(found.keys() | reference.keys()):
            lines += differences(found.get(key), reference.get(key), f"{where}.{key}" if where else key)
        return lines
    if isinstance(found, list) and isinstance(reference, list) and len(found) == len(reference):
        pairs = enumerate(zip(found, reference, strict=True))
        return [line for i, (one, other) in pairs for line in differences(one, other, f"{where}[{i}]")]
    return [] if found == reference else [f"{where}: {str(found)[:200]} instead of {str(reference)[:200]}"]


def counts(what: str, found: Counter[str], reference: Counter[str]) -> list[str]:
    """Where two counts differ."""
    keys = sorted(found.keys() | reference.keys())
    return [
        f"{key}: {what} {found[key]} times instead of {reference[key]}" for key in keys if found[key] != reference[key]
    ]


def judge(lane: Lane, end: Json, reference: Json, created: Counter[str], deleted: Counter[str]) -> list[str]:
    """Everything in which a run differs from the fault-free one."""
    late = lane.converged is not None and lane.converged > CONVERGE_SECONDS
    slow = [f"came to rest {lane.converged:.0f} s after the heal, {CONVERGE_SECONDS:.0f} s allowed"] if late else []
    twice = [f"Event {name} was written {n} times" for name, n in lane.told.items() if n > 1]
    return [
        *lane.problems,
        *differences(end, reference),
        *counts("created", lane.created, created),
        *counts("deleted", lane.deleted, deleted),
        *twice,
        *slow,
    ]


def condition(cr: Json, kind: str) -> tuple[str, str]:
    """(status, reason) of a condition; empty while it is not there."""
    return condition_of(cr, kind)[:2]


def is_true(cr: Json, revision: str) -> bool:
    """Whether the status speaks of the present generation, and says that this revision serves and nothing is going on."""
    status, generation = cr.get("status") or {}, cr["metadata"]["generation"]
    current = {status.get("observedGeneration"), *(c.get("observedGeneration") for c in status.get("conditions", ()))}
    serves = status.get("revision") == revision and "candidate" not in status and status.get("readyReplicas") == 1
    return (
        current == {generation}
        and serves
        and condition(cr, "Ready")[0] == "True"
        and condition(cr, "Progressing")[0] == "False"
    )
