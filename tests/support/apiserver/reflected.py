"""ConfigMaps with one value as reflectors hold them, for tests of what watches."""

import dataclasses
from typing import Any

from r1plus_operator.api.kinds import CONFIG_MAP
from r1plus_operator.runtime.backoff import Backoff
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.reflector import ReflectorTiming
from support.apiserver.manifests import config_map

FAST = ReflectorTiming(retry=Backoff(first=0.005, cap=0.1), inactivity=0.5, absent_recheck=0.1)
PATIENT = dataclasses.replace(FAST, inactivity=60.0)
MANAGED = {"app.kubernetes.io/managed-by": "op"}


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """What is kept of an object."""

    namespace: str
    name: str
    uid: str
    data: str


def project(obj: dict[str, Any]) -> Item:
    """Return what is kept of a ConfigMap, or of an object with a `spec`."""
    meta = obj["metadata"]
    return Item(meta["namespace"], meta["name"], meta["uid"], (obj.get("data") or obj.get("spec") or {}).get("x", ""))


async def put(client: ApiClient, namespace: str, name: str, x: str = "", labels: dict[str, str] | None = None) -> None:
    """Apply a ConfigMap with this value, with our label unless others are given."""
    body = config_map(name, namespace, MANAGED if labels is None else labels, x=x)
    await client.apply(CONFIG_MAP, body, field_manager="test")
