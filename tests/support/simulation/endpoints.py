"""Which parts of an object an endpoint writes: the main one or that of its status."""

from typing import Any

from r1plus_operator.api import kinds
from support.simulation.traits import Traits

Object = dict[str, Any]
_KEPT_BY_STATUS = {kinds.BY_KIND["Deployment"]: ("labels",), kinds.POD: ("ownerReferences",)}
"""Metadata that the status endpoint of a built-in kind does not write; it writes all other."""


def select_written(traits: Traits, live: Object, sent: Object, subresource: str) -> Object:
    """Return the object with those parts of `sent` that an update or a patch at this endpoint writes."""
    if not traits.has_status:
        return sent
    if subresource == "status":
        return _with_status(traits, live, sent)
    result = {key: value for key, value in sent.items() if key != "status"}
    return {**result, "status": live["status"]} if "status" in live else result


def _with_status(traits: Traits, live: Object, sent: Object) -> Object:
    result = {key: value for key, value in live.items() if key != "status"}
    if "status" in sent or traits.schema is None:
        result["status"] = sent.get("status") or {}
    if traits.schema is not None:
        return result
    kept = _KEPT_BY_STATUS.get(traits.resource, ())
    meta = {key: value for key, value in sent["metadata"].items() if key not in kept}
    meta |= {key: live["metadata"][key] for key in kept if key in live["metadata"]}
    return {**result, "metadata": meta}


def select_applied(traits: Traits, config: Object, subresource: str) -> Object:
    """Return those parts of an applied object that the endpoint owns."""
    if subresource != "status":
        return {key: value for key, value in config.items() if key != "status" or not traits.has_status}
    meta = {key: value for key, value in config["metadata"].items() if key in ("name", "namespace")}
    return {**{key: config[key] for key in ("apiVersion", "kind", "status") if key in config}, "metadata": meta}
