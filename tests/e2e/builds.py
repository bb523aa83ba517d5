"""Looks at the Jobs that build engines onto volumes."""

import re

from e2e.kube import Json, Kube
from r1plus_contract.names import ANNOTATION_DELIVERED, INIT_BUILD, LABEL_VOLUME

_JOBS = f"{LABEL_VOLUME},app.kubernetes.io/name=r1plus-delivery"
_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 443), 3)"


def find_builder(kube: Kube, namespace: str) -> Json | None:
    """Return the pod of the namespace that builds now."""
    return next((pod for pod in kube.all("pods", namespace, _JOBS) if _is_building(pod)), None)


def _is_building(pod: Json) -> bool:
    states = pod.get("status", {}).get("initContainerStatuses", ())
    return any("running" in one["state"] for one in states if one["name"] == INIT_BUILD)


def can_reach_api_server(kube: Kube, pod: Json) -> bool:
    """Return whether a builder gets a connection out of its pod."""
    address = (kube.get("services", "default", "kubernetes") or {})["spec"]["clusterIP"]
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    try:
        kube.kubectl("exec", "-n", namespace, name, "-c", INIT_BUILD, "--", "python3", "-c", _CONNECT, address)
    except RuntimeError as error:
        assert re.search("timed out|refused|unreachable", str(error)), error
        return False
    return True


def read_claims(kube: Kube, namespace: str) -> dict[str, str]:
    """Return the volumes of the namespace, and the digest of the files that each was verified to have; empty: none."""
    claims = [one["metadata"] for one in kube.all("persistentvolumeclaims", namespace)]
    return {one["name"]: one.get("annotations", {}).get(ANNOTATION_DELIVERED, "") for one in claims}
