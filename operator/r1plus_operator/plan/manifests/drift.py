"""Detect drift between desired and live objects, so that a pass over an unchanged cluster writes nothing.

An object is applied when its spec hash differs (we removed or changed a field), or when a field that we set has another
value (someone edited it). Fields that others added stay and do not count. An apply cannot remove items that others
added to our lists; `foreign_items_patch` does.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from r1plus_contract import names
from r1plus_operator.plan.observation import Json

_ATOMIC = frozenset({"selector", "podSelector", "namespaceSelector", "matchLabels", "nodeSelector"})
"""Maps that must be equal: an additional label would select other pods or nodes."""
_ABSENT_IS_FALSE = frozenset({"publishNotReadyAddresses"})
"""Fields that the API server drops where they are false."""
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
"""List -> keys that identify its items, as the API server merges them. Any other list must be equal."""
_SHARED = frozenset({"ownerReferences"})
"""Lists that others may add items to, except an owner that controls the object: its CR is the only controller."""
_MAX_TEXT = 256
"""Characters beyond which a ConfigMap's text is replaced by its digest."""


def fold_texts(obj: Json) -> Json:
    """Return a ConfigMap with digests instead of its long texts; any other object unchanged.

    Every deployment has a whole golden suite, so caches and comparisons use its digests. A digest is a dict, so no text
    can imitate one. Folding twice changes nothing.
    """
    if obj.get("kind") != "ConfigMap" or not obj.get("data"):
        return obj
    return {**obj, "data": {key: _fold(text) for key, text in obj["data"].items()}}


def _fold(text: Any) -> Any:
    return {"sha256": hash_text(text)} if isinstance(text, str) and len(text) > _MAX_TEXT else text


@lru_cache(maxsize=16)
def hash_text(text: str) -> str:
    """Return the sha256 of a ConfigMap's text. Cached, because all deployments of a tier share one suite.

    The cache is small, because a tenant's own suite may have 900 kB.
    """
    return hashlib.sha256(text.encode()).hexdigest()


def with_spec_hash(desired: Json) -> Json:
    """Return the desired object with its own hash as an annotation."""
    canonical = orjson.dumps(fold_texts(desired), option=orjson.OPT_SORT_KEYS)
    metadata = desired["metadata"]
    digest = hashlib.sha256(canonical).hexdigest()[:16]
    notes = {**metadata.get("annotations", {}), names.ANNOTATION_DESIRED_HASH: digest}
    return {**desired, "metadata": {**metadata, "annotations": notes}}


def is_in_sync(desired: Json, live: Json | None) -> bool:
    """Whether the live object has everything that `desired`, which has its hash, sets."""
    return live is not None and is_covered(fold_texts(live), fold_texts(desired))


def is_covered(live: Any, desired: Any) -> bool:
    """Whether `live` has every value of `desired`. Keyed lists have exactly its items, other lists are equal."""
    if live == desired:
        return True
    if desired in (None, "", [], {}):
        # The API server drops empty values of optional fields; false and 0 it keeps, and their absence may mean true.
        return live in (None, "", [], {}) or desired == {}
    if not isinstance(desired, dict) or not isinstance(live, dict):
        return False
    return all(_is_field_covered(key, live.get(key), value) for key, value in desired.items())


def _is_field_covered(key: str, live: Any, desired: Any) -> bool:
    if key in _ATOMIC:
        return (live or None) == (desired or None)
    if key in _ABSENT_IS_FALSE:
        return bool(live) == bool(desired)
    if key in _KEYS and isinstance(desired, list):
        return _are_items_covered(key, live if isinstance(live, list) else [], desired)
    return is_covered(live, desired)


def _are_items_covered(name: str, live: list[Any], desired: list[Json]) -> bool:
    if name not in _SHARED and len(live) != len(desired):
        return False
    live_items = {_get_identity(name, item): item for item in live}
    return all(is_covered(live_items.get(_get_identity(name, item)), item) for item in desired)


def _get_identity(name: str, item: Any) -> tuple[Any, ...]:
    return tuple(item.get(part) if isinstance(item, dict) else item for part in _KEYS[name])


def foreign_items_patch(desired: Any, live: Any, path: str = "") -> list[Json]:
    """Return the JSON patch that removes foreign items from our keyed lists; empty: an apply suffices.

    It tests the identity of each item that it removes, so it fails if the live object has changed meanwhile. It does
    not test whole items: the API server compares texts, and encodes `&`, `<` and `>` differently.
    """
    patch: list[Json] = []
    if not isinstance(desired, dict) or not isinstance(live, dict):
        return patch
    for name, desired_value in desired.items():
        field_path, live_value = f"{path}/{name}", live.get(name)
        if name in _KEYS and isinstance(desired_value, list) and isinstance(live_value, list):
            patch += _patch_list(name, desired_value, live_value, field_path)
        else:
            patch += foreign_items_patch(desired_value, live_value, field_path)
    return patch


def _patch_list(name: str, desired: list[Json], live: list[Any], path: str) -> list[Json]:
    desired_items = {_get_identity(name, item): item for item in desired}
    patch: list[Json] = []
    # From the end, so that a removal does not move the items that follow in the loop.
    for place in reversed(range(len(live))):
        desired_item, item_path = desired_items.get(_get_identity(name, live[place])), f"{path}/{place}"
        if desired_item is not None:
            patch += foreign_items_patch(desired_item, live[place], item_path)
        elif name not in _SHARED or live[place].get("controller"):
            patch += [*_test_identity(name, live[place], item_path), {"op": "remove", "path": item_path}]
    return patch


def _test_identity(name: str, item: Any, path: str) -> list[Json]:
    """Return the patch operations that test an item's identity."""
    keys = [key for key in _KEYS[name] if isinstance(item, dict) and key in item]
    return [{"op": "test", "path": f"{path}/{key}", "value": item[key]} for key in keys]


def with_preconditions(desired: Json, live: Json | None) -> Json:
    """Return `desired` with the live object's uid, and its resourceVersion if the cache has it."""
    if live is None:
        return desired
    preconditions = {key: live["metadata"][key] for key in ("uid", "resourceVersion") if key in live["metadata"]}
    return {**desired, "metadata": {**desired["metadata"], **preconditions}}
