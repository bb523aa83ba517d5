"""Merge patches (RFC 7396) and JSON patches (RFC 6902). They return a new object and change none."""

from typing import Any

import orjson

from r1plus_operator.runtime.errors import ApiError, InvalidError

REJECTED = "the server rejected our request due to an error in our request"


def merge(value: Any, patch: Any) -> Any:
    """Return `value` with a merge patch; parts that it does not name are shared."""
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for key, change in patch.items():
        if change is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), change)
    return result


def apply_json_patch(obj: dict[str, Any], operations: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the object after all operations.

    Raises:
        InvalidError: a test failed, or a path is not there: nothing is changed then.
    """
    root = {"": orjson.loads(orjson.dumps(obj))}
    for operation in operations:
        try:
            _apply_operation(root, operation)
        except (LookupError, TypeError, ValueError) as error:
            raise InvalidError(422, "Invalid", REJECTED) from error
    result = root[""]
    if not isinstance(result, dict):
        raise ApiError(400, "BadRequest", "the patch leaves no object")
    return result


def _apply_operation(root: dict[str, Any], operation: dict[str, Any]) -> None:
    parent, key = _find(root, operation["path"])
    match operation["op"]:
        case "test":
            if _read(parent, key) != operation.get("value"):
                raise ValueError("test failed")
        case "remove":
            _remove(parent, key)
        case "add":
            _add(parent, key, operation["value"])
        case "replace":
            # The API server's replaces what is absent, too (measured, 1.34).
            parent[_to_index(parent, key)] = operation["value"]
        case "move":
            source = _find(root, operation["from"])
            value = _read(*source)
            _remove(*source)
            _add(*_find(root, operation["path"]), value)
        case "copy":
            _add(parent, key, orjson.loads(orjson.dumps(_read(*_find(root, operation["from"])))))
        case other:
            raise ValueError(f"op: {other}")


def _find(root: dict[str, Any], path: str) -> tuple[Any, str]:
    """Return what holds the value at `path`, and its key there."""
    *steps, last = [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")]
    parent: Any = root
    for step in steps:
        parent = parent[_to_index(parent, step)]
    return parent, last


def _to_index(parent: Any, key: str) -> Any:
    if not isinstance(parent, list):
        return key
    if not key.isdecimal():
        raise ValueError(f"{key} is no index")
    return int(key)


def _read(parent: Any, key: str) -> Any:
    return parent[_to_index(parent, key)]


def _remove(parent: Any, key: str) -> None:
    del parent[_to_index(parent, key)]


def _add(parent: Any, key: str, value: Any) -> None:
    if not isinstance(parent, list):
        parent[key] = value
        return
    index = len(parent) if key == "-" else int(_to_index(parent, key))
    if index > len(parent):
        raise IndexError(key)
    parent.insert(index, value)
