"""Write objects into etcd as the API server stores them, so that uid, generation and managedFields stay what they were.

The API server stores its own kinds as protobuf, and reads JSON as well. It asks for no field that it does not find.
"""

import base64
import json
import ssl
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import httpx

from devcluster.layout import Layout
from devcluster.pki import Authority
from r1plus_operator.api import kinds
from r1plus_operator.runtime.lease import LEASE
from r1plus_operator.runtime.resources import Resource
from support.waiting import DEADLINE_SECONDS, wait_until

Json = dict[str, Any]
CRD = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False)
IP_ADDRESS = Resource("networking.k8s.io", "v1", "ipaddresses", "IPAddress", False)
"""The API server's own note of each Service's address."""
STORED = (
    CRD,
    kinds.NAMESPACE,
    kinds.NODE,
    kinds.R1PLUS_ENGINE,
    kinds.R1PLUS_TENANT,
    kinds.R1PLUS_DEPLOYMENT,
    *kinds.CHILDREN,
    kinds.POD,
    IP_ADDRESS,
    LEASE,
)
"""Every kind that a stored cluster may hold: what the operator reads. A later version adds its kinds here."""
_FOLDERS: Mapping[str, str] = MappingProxyType({"nodes": "minions", "services": "services/specs"})
"""Where the API server keeps one of its own kinds under another name than the plural."""

_ESCAPED = "<>&\u2028\u2029"


def resource_of(obj: Json) -> Resource:
    """Return the kind of a stored object."""
    return next(one for one in STORED if (one.api_version, one.kind) == (obj["apiVersion"], obj["kind"]))


def key_of(obj: Json) -> str:
    """Return the key under which the API server stores an object."""
    resource, meta = resource_of(obj), obj["metadata"]
    plural = _FOLDERS.get(resource.plural, resource.plural)
    own = resource.group in ("", "apps", "batch", "policy") or resource.group.endswith(".k8s.io")
    folder = plural if own and resource != CRD else f"{resource.group}/{plural}"
    return "/".join(part for part in ("/registry", folder, meta.get("namespace"), meta["name"]) if part)


def fill(objects: Iterable[Json], layout: Layout, authority: Authority) -> None:
    """Put the objects into the etcd of this layout, which may still be starting."""
    client = authority.issue("apiserver-etcd", "apiserver")
    tls = ssl.create_default_context(cafile=str(authority.certificate))
    tls.load_cert_chain(client.certificate, client.key)
    with httpx.Client(base_url=layout.etcd_url, verify=tls, timeout=DEADLINE_SECONDS) as etcd:
        wait_until(lambda: etcd.get("/health").is_success, "etcd answers", retry_on=(httpx.TransportError,))
        for obj in objects:
            etcd.post("/v3/kv/put", json={"key": _base64(key_of(obj)), "value": _base64(_text(obj))}).raise_for_status()


def _text(obj: Json) -> str:
    """Return what the API server would store, without the version, which is etcd's own.

    `data` of a ControllerRevision is kept as the very bytes that are stored, and a write that comes with other bytes is
    refused. So this is JSON as Go writes it: sorted, without spaces, `<`, `>` and `&` escaped.
    """
    meta = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    text = json.dumps({**obj, "metadata": meta}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "".join(f"\\u{ord(char):04x}" if char in _ESCAPED else char for char in text)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
