"""The API server as the demo and the end-to-end tests use it: raw JSON, and `kubectl` where a user would.

Reading goes over one HTTP connection: a kubectl process for every look would take a core from what is being watched.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from devcluster.toolchain import kubectl
from r1plus_contract.names import GROUP, LABEL_DEPLOYMENT, LABEL_REVISION, VERSION

Json = dict[str, Any]

# Where a kind's objects lie. Only kinds that the story looks at.
ROOTS: Mapping[str, str] = {
    "namespaces": "/api/v1",
    "pods": "/api/v1",
    "services": "/api/v1",
    "configmaps": "/api/v1",
    "secrets": "/api/v1",
    "serviceaccounts": "/api/v1",
    "events": "/api/v1",
    "nodes": "/api/v1",
    "persistentvolumeclaims": "/api/v1",
    "resourcequotas": "/api/v1",
    "limitranges": "/api/v1",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1",
    "jobs": "/apis/batch/v1",
    "deployments": "/apis/apps/v1",
    "replicasets": "/apis/apps/v1",
    "controllerrevisions": "/apis/apps/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
    "podmonitors": "/apis/monitoring.coreos.com/v1",
    "r1plusdeployments": f"/apis/{GROUP}/{VERSION}",
    "r1plustenants": f"/apis/{GROUP}/{VERSION}",
    "r1plusengines": f"/apis/{GROUP}/{VERSION}",
}


class Kube:
    """One cluster by its kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._api = config.new_client_from_config(str(kubeconfig))
        self.core = client.CoreV1Api(self._api)

    def get(self, plural: str, namespace: str | None, name: str) -> Json | None:
        """One object, or None where there is none."""
        try:
            return self._call("GET", f"{_path(plural, namespace)}/{name}")
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def all(self, plural: str, namespace: str | None = None, selector: str = "") -> list[Json]:
        """All objects of a kind; none while the API server doesn't answer or doesn't know the kind."""
        try:
            query = [("labelSelector", selector)] if selector else []
            return list(self._call("GET", _path(plural, namespace), query=query)["items"])
        except ApiException as error:
            if error.status == 404:
                return []
            raise

    def pods_of(self, namespace: str, deployment: str) -> list[Json]:
        """Every pod that serves, or will, whatever its revision; not the isolation test's, which stay until its next run."""
        return self.all("pods", namespace, f"{LABEL_DEPLOYMENT}={deployment},{LABEL_REVISION}")

    def patch(
        self, plural: str, namespace: str, name: str, body: Json, headers: Mapping[str, str] | None = None
    ) -> Json:
        """A merge patch, as `kubectl patch --type=merge` sends it; `headers`: as whom, if as another user."""
        kind = {"Content-Type": "application/merge-patch+json", **(headers or {})}
        return self._call("PATCH", f"{_path(plural, namespace)}/{name}", body=body, headers=kind)

    def apply(self, body: Json) -> None:
        """`kubectl apply` of one object."""
        self.kubectl("apply", "-f", "-", given=json.dumps(body))

    def create_at(self, path: str, body: Json) -> Json:
        """Create an object at a path, such as that of a subresource."""
        return self._call("POST", path, body=body, headers={"Content-Type": "application/json"})

    def create(self, plural: str, namespace: str | None, body: Json, *, dry_run: bool = False) -> Json:
        """Create an object."""
        query = [("dryRun", "All")] if dry_run else []
        kind = {"Content-Type": "application/json"}
        return self._call("POST", _path(plural, namespace), query=query, body=body, headers=kind)

    def delete(self, plural: str, namespace: str | None, name: str) -> None:
        """Delete one object; one that has gone already is fine."""
        try:
            self._call("DELETE", f"{_path(plural, namespace)}/{name}")
        except ApiException as error:
            if error.status != 404:
                raise

    def kubectl(self, *words: str, given: str | None = None) -> str:
        """Run kubectl and return what it prints; a failure carries its own words."""
        command = [str(kubectl()), f"--kubeconfig={self.kubeconfig}", *words]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(words)} exited {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: list[tuple[str, str]] | None = None,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        sent = {"Accept": "application/json", **(headers or {})}
        request = self._api.param_serialize(
            method, path, query_params=query or [], header_params=sent, body=body, auth_settings=["BearerToken"]
        )
        answer = self._api.call_api(*request, _request_timeout=60)
        answer.read()
        if not 200 <= answer.status < 300:
            raise ApiException(status=answer.status, reason=answer.reason, body=(answer.data or b"").decode())
        return dict(json.loads(answer.data))


def _path(plural: str, namespace: str | None) -> str:
    middle = f"/namespaces/{namespace}" if namespace else ""
    return f"{ROOTS[plural]}{middle}/{plural}"


UNREACHABLE = (ApiException, HTTPError)
"""What a look at the API raises while the server restarts; loops with a deadline go on."""
