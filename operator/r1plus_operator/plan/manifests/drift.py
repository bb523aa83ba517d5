"""Does a live object still say what we want? Decided here, so that a pass over an unchanged world writes nothing.

An apply is needed when the desired hash differs (we removed or changed a field) or when any field that we set reads
otherwise in the live object (somebody edited it). Fields that others added stay and do not count. What an apply cannot
put right are items that others added to a list of ours: those are `strays`.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from r1plus_contract import names
from r1plus_operator.plan.observation import Json

_ATOMIC = frozenset({"selector", "podSelector", "namespaceSelector", "matchLabels", "nodeSelector"})
"""Maps that have one owner: one more label selects other pods or nodes."""
_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "groups": ("name",),
    "volumeMounts": ("mountPath",),
    "ports": ("port", "containerPort", "protocol"),
    "ownerReferences": ("uid",),
}
"""Lists whose items have an identity, and what it is, as the API server merges them. Any other list has one owner."""
_OPEN = frozenset({"ownerReferences"})
"""Keyed lists to which others may add, but no owner that controls the object: it has one controller, its CR."""
_LONG = 256
"""Characters beyond which a ConfigMap's text is represented by its digest."""


def folded(obj: Json) -> Json:
    """A ConfigMap with the digests of its long texts instead of them; anything else as it is.

    Every deployment has a whole golden suite: this is what the caches keep of it, and what is compared. No text can
    pose as a digest, since a digest is no string here. Folding twice changes nothing.
    """
    if obj.get("kind") != "ConfigMap" or not obj.get("data"):
        return obj
    return {**obj, "data": {key: _fold(text) for key, text in obj["data"].items()}}


def _fold(text: Any) -> Any:
    return {"sha256": sha256(text)} if isinstance(text, str) and len(text) > _LONG else text


@lru_cache(maxsize=16)
def sha256(text: str) -> str:
    """Hash a file of a ConfigMap. Cached, since all deployments of a tier share one suite.

    Of few, since a tenant's own may have 900 kB.
    """
    return hashlib.sha256(text.encode()).hexdigest()


def stamped(desired: Json) -> Json:
    """`desired` with the hash of itself as an annotation."""
    canonical = orjson.dumps(folded(desired), option=orjson.OPT_SORT_KEYS)
    metadata = desired["metadata"]
    digest = hashlib.sha256(canonical).hexdigest()[:16]
    notes = {**metadata.get("annotations", {}), names.ANNOTATION_DESIRED_HASH: digest}
    return {**desired, "metadata": {**metadata, "annotations": notes}}


def in_sync(desired: Json, live: Json | None) -> bool:
    """Whether `live` covers the (stamped) `desired`."""
    return live is not None and covers(folded(live), folded(desired))


def covers(live: Any, desired: Any) -> bool:
    """Every value of `desired` stands in `live`: keyed lists hold exactly its items, atomic ones are equal."""
    if live == desired:
        return True
    if desired in (None, "", [], {}):
        # The API server drops empty values of optional fields; false and 0 it keeps, and their absence may mean true.
        return live in (None, "", [], {}) or desired == {}
    if not isinstance(desired, dict) or not isinstance(live, dict):
        return False
    return all(_covers_field(key, live.get(key), value) for key, value in desired.items())


def _covers_field(key: str, live: Any, desired: Any) -> bool:
    if key in _ATOMIC:
        return (live or None) == (desired or None)
    if key in _KEYS and isinstance(desired, list):
        return _covers_items(key, live if isinstance(live, list) else [], desired)
    return covers(live, desired)


def _covers_items(name: str, live: list[Any], desired: list[Json]) -> bool:
    if name not in _OPEN and len(live) != len(desired):
        return False
    found = {_key(name, item): item for item in live}
    return all(covers(found.get(_key(name, item)), item) for item in desired)


def _key(name: str, item: Any) -> tuple[Any, ...]:
    return tuple(item.get(part) if isinstance(item, dict) else item for part in _KEYS[name])


def strays(desired: Any, live: Any, path: str = "") -> list[Json]:
    """A JSON patch that takes out of our keyed lists what others put there; empty where an apply alone suffices.

    It says which item it takes out, so that it fails where the live object has changed meanwhile. Which, and not all of
    it: the API server compares the text of values, and writes `&`, `<` and `>` of a command otherwise than we do.
    """
    found: list[Json] = []
    if not isinstance(desired, dict) or not isinstance(live, dict):
        return found
    for name, wanted in desired.items():
        here, has = f"{path}/{name}", live.get(name)
        if name in _KEYS and isinstance(wanted, list) and isinstance(has, list):
            found += _strays_of_list(name, wanted, has, here)
        else:
            found += strays(wanted, has, here)
    return found


def _strays_of_list(name: str, desired: list[Json], live: list[Any], path: str) -> list[Json]:
    wanted = {_key(name, item): item for item in desired}
    found: list[Json] = []
    # From the end, so that what is taken out moves nothing that is still to be looked at.
    for place in reversed(range(len(live))):
        ours, here = wanted.get(_key(name, live[place])), f"{path}/{place}"
        if ours is not None:
            found += strays(ours, live[place], here)
        elif name not in _OPEN or live[place].get("controller"):
            found += [*_identified(name, live[place], here), {"op": "remove", "path": here}]
    return found


def _identified(name: str, item: Any, path: str) -> list[Json]:
    """Tests that an item of that identity stands there."""
    keys = [key for key in _KEYS[name] if isinstance(item, dict) and key in item]
    return [{"op": "test", "path": f"{path}/{key}", "value": item[key]} for key in keys]


def bound(desired: Json, live: Json | None) -> Json:
    """`desired`, bound to the object that was seen, and to its version where that is kept."""
    if live is None:
        return desired
    found = {key: live["metadata"][key] for key in ("uid", "resourceVersion") if key in live["metadata"]}
    return {**desired, "metadata": {**desired["metadata"], **found}}
