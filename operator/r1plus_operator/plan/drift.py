"""Does a live object still say what we want? Decided here, so that a pass over an unchanged world writes nothing.

An apply is needed when the desired hash differs (we removed or changed a field) or when any field that we set reads
otherwise in the live object (somebody edited it). Fields that others added stay and do not count.
"""

import hashlib
from typing import Any

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_operator.plan.inputs import Json


def stamped(desired: Json) -> Json:
    """`desired` with the hash of itself as an annotation."""
    digest = hashlib.sha256(dumps(desired).encode()).hexdigest()[:16]
    metadata = desired["metadata"]
    notes = {**metadata.get("annotations", {}), names.ANNOTATION_DESIRED_HASH: digest}
    return {**desired, "metadata": {**metadata, "annotations": notes}}


def in_sync(desired: Json, live: Json | None) -> bool:
    """Whether `live` covers the (stamped) `desired`."""
    return live is not None and covers(live, desired)


_EXACT = frozenset({"selector", "podSelector", "namespaceSelector", "matchLabels", "ingress", "egress"})
"""What an addition changes as much as an edit: one more label selects other pods, one more peer opens a wall."""
_OPEN_LISTS = frozenset({"ownerReferences"})
"""Lists of named things to which others may add."""


def covers(live: Any, desired: Any) -> bool:
    """Every value of `desired` stands in `live`. Lists of named things match by name, other lists by position."""
    if isinstance(desired, dict):
        if not isinstance(live, dict):
            return not desired
        return all(_covers_field(key, live.get(key), value) for key, value in desired.items())
    if isinstance(desired, list):
        return _covers_list(live if isinstance(live, list) else [], desired, open_ended=False)
    if desired in ("", None, False, 0):
        # The API server drops empty values of optional fields.
        return live in ("", None, False, 0)
    return bool(live == desired)


def _covers_field(key: str, live: Any, desired: Any) -> bool:
    if key in _EXACT:
        return (live or None) == (desired or None)
    if isinstance(desired, list):
        return _covers_list(live if isinstance(live, list) else [], desired, open_ended=key in _OPEN_LISTS)
    return covers(live, desired)


def _covers_list(live: list[Any], desired: list[Any], *, open_ended: bool) -> bool:
    if not open_ended and len(live) != len(desired):
        return False
    if desired and all(isinstance(item, dict) and "name" in item for item in desired):
        by_name = {item.get("name"): item for item in live if isinstance(item, dict)}
        return all(covers(by_name.get(item["name"]), item) for item in desired)
    return all(covers(has, want) for has, want in zip(live, desired, strict=True))
