"""The chart's rights, policies and decoy on the real API server, and people to whom they apply, by their certificates.

What is asked is asked by HTTP as it stands in the test, as a dry run: nothing that is let through changes anything for
the next question. Who is refused is known first: an identity that is wrong proves nothing.
"""

import asyncio
import json
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from apiserver.operator_rig import ACCOUNT, DEADLINE_SECONDS
from devcluster import binaries
from devcluster.apiserver_only import ApiServer
from devcluster.cache import binary
from devcluster.parts import KUBERNETES
from devcluster.steps import Steps
from r1plus_operator.runtime import connection
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.resources import Resource

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
RELEASE_NAMESPACE = "r1plus-system"
DECOY_NAMESPACE = "r1plus-decoy"
MERGE, STRATEGIC, APPLY = (
    f"application/{kind}" for kind in ("merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml")
)
RBAC, POLICY = "rbac.authorization.k8s.io", "admissionregistration.k8s.io"
INSTALLED = {
    (kind, Resource(group, "v1", plural, kind, namespaced=namespaced))
    for kind, group, plural, namespaced in (
        ("Namespace", "", "namespaces", False),
        ("ServiceAccount", "", "serviceaccounts", True),
        ("Secret", "", "secrets", True),
        ("ClusterRole", RBAC, "clusterroles", False),
        ("ClusterRoleBinding", RBAC, "clusterrolebindings", False),
        ("Role", RBAC, "roles", True),
        ("RoleBinding", RBAC, "rolebindings", True),
        ("ValidatingAdmissionPolicy", POLICY, "validatingadmissionpolicies", False),
        ("ValidatingAdmissionPolicyBinding", POLICY, "validatingadmissionpolicybindings", False),
    )
}
KINDS: Mapping[str, Resource] = dict(INSTALLED)
POLICIES = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


def rendered(**values: Any) -> list[Json]:
    """Everything that `helm install r1plus` would send for these values, the leader's fence excepted.

    The fence is of the operator's replicas: it looks at a Lease that nobody holds here.
    """
    helm = binary("helm")
    if not helm.exists():
        binaries.build(Steps(1), ("helm",))
    values = {"leaderElection": {"fence": False}, **values}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        command = [str(helm), "template", "r1plus", str(ROOT / "charts" / "r1plus-operator"), f"--values={file.name}"]
        command += [f"--namespace={RELEASE_NAMESPACE}", f"--kube-version={KUBERNETES}"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [found for found in yaml.safe_load_all(shown.stdout) if found]


def policies() -> list[Json]:
    """Of what is rendered, the policies and their bindings."""
    return [found for found in rendered() if found["kind"] in POLICIES]


async def install(server: ApiServer) -> None:
    """The chart's namespaces, accounts, rights and policies; no workload."""
    async with ApiClient.from_kubeconfig(server.kubeconfig) as admin:
        for name in (RELEASE_NAMESPACE, "monitoring"):
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            await admin.apply(KINDS["Namespace"], namespace, field_manager="helm")
        wanted = [found for found in rendered() if found["kind"] in KINDS]
        for found in sorted(wanted, key=lambda one: (one["kind"] != "Namespace", one["kind"] in POLICIES)):
            found["metadata"].pop("annotations", None)
            await admin.apply(KINDS[found["kind"]], found, field_manager="helm")


async def lift(server: ApiServer) -> None:
    """The policies go; other tests have the server after this one."""
    async with ApiClient.from_kubeconfig(server.kubeconfig) as admin:
        for policy in policies():
            await admin.delete(KINDS[policy["kind"]], policy["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class Answer:
    """Of the API server."""

    status: int
    text: str

    @property
    def refused(self) -> bool:
        """Nobody was let in: by RBAC or by a policy."""
        return self.status in (401, 403)

    def __str__(self) -> str:
        return f"{self.status} {self.text[:600]}"


class Person:
    """Somebody with a certificate, or nobody at all."""

    def __init__(self, name: str, http: httpx.Client) -> None:
        self.name = name
        self._http = http

    def ask(self, method: str, path: str, body: Json | None = None, *, kind: str = "", dry: bool = True) -> Answer:
        """One request; a dry run unless said otherwise."""
        changes = dry and method != "GET" and not path.split("?")[0].endswith(("/exec", "/attach", "/portforward"))
        where = path + (("&" if "?" in path else "?") + "dryRun=All" if changes else "")
        if kind == APPLY:
            where += "&fieldManager=test&force=true" if "?" in where else "?fieldManager=test&force=true"
        content = json.dumps(body, separators=(",", ":")) if body is not None else None
        headers = {"Content-Type": kind or (MERGE if method == "PATCH" else "application/json")}
        answer = self._http.request(method, where, content=content, headers=headers if content else {})
        return Answer(answer.status_code, _told(answer))

    def do(self, method: str, path: str, body: Json | None = None, *, kind: str = "") -> Json:
        """One that must be let through, and is carried out."""
        answer = self.ask(method, path, body, kind=kind, dry=False)
        assert answer.status in (200, 201, 202), f"{self.name}: {method} {path}: {answer}"
        return dict(json.loads(answer.text))

    def who(self) -> str:
        """As the API server sees this person."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = self.ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body, dry=False)
        return str(json.loads(answer.text)["status"]["userInfo"]["username"]) if answer.status == 201 else ""

    def may(self, verb: str, resource: str, namespace: str, group: str = "", subresource: str = "") -> bool:
        """What RBAC says; policies are not asked."""
        attributes = {
            "namespace": namespace,
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": subresource,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body, dry=False)
        return bool(json.loads(answer.text)["status"]["allowed"])


def _told(answer: httpx.Response) -> str:
    """The message where there is one, so that its quotes are read as they were written."""
    try:
        body = answer.json()
    except ValueError:
        return answer.text
    failed = isinstance(body, dict) and body.get("kind") == "Status" and body.get("status") == "Failure"
    return str(body.get("message")) if failed else answer.text


@contextmanager
def person(server: ApiServer, user: str, groups: tuple[str, ...] = ()) -> Iterator[Person]:
    """`user`, in these groups."""
    tls = connection.from_kubeconfig(server.kubeconfig_for(user, groups)).tls
    with httpx.Client(base_url=server.url, verify=tls or True, timeout=30) as http:
        yield Person(user, http)


@contextmanager
def nobody(server: ApiServer) -> Iterator[Person]:
    """Who shows nothing."""
    with httpx.Client(
        base_url=server.url, verify=ssl.create_default_context(cafile=str(server.ca)), timeout=30
    ) as http:
        yield Person("system:anonymous", http)


@contextmanager
def people(server: ApiServer, *users: str) -> Iterator[dict[str, Person]]:
    """Each of them; a service account (`system:serviceaccount:...`) in the groups that one has."""
    with ExitStack() as stack:
        yield {user: stack.enter_context(person(server, user, groups(user))) for user in users}


def groups(user: str) -> tuple[str, ...]:
    """Those that the API server puts a service account into; nobody else is in any."""
    words = user.split(":")
    if words[:2] != ["system", "serviceaccount"]:
        return ()
    return ("system:serviceaccounts", f"system:serviceaccounts:{words[2]}", "system:authenticated")


def account(namespace: str, name: str) -> str:
    """The user that a service account is."""
    return f"system:serviceaccount:{namespace}:{name}"


def until(check: Callable[[], bool], what: str) -> None:
    """Ask until it holds, with a deadline."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not check():
        assert time.monotonic() < end, f"after {DEADLINE_SECONDS:.0f} s still not so: {what}"
        time.sleep(0.05)


def role_binding(namespace: str, name: str, role: str, *subjects: Json, kind: str = "ClusterRole") -> Json:
    """As a platform team writes it."""
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
        "subjects": list(subjects),
    }


def user(name: str) -> Json:
    """A subject."""
    return {"apiGroup": RBAC, "kind": "User", "name": name}


@contextmanager
def installed(server: ApiServer) -> Iterator[ApiServer]:
    """The chart's rights and policies in force; without the policies afterwards."""
    asyncio.run(install(server))
    probe = {
        "apiVersion": "r1plus.ai/v1alpha1",
        "kind": "R1PlusDeployment",
        "metadata": {"name": "probe"},
        "spec": {"tier": "full"},
    }
    marked = {"app.kubernetes.io/managed-by": "r1plus-operator"}
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe", "labels": marked}}
    operator = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}}
    asked = (
        ("admin", "/apis/r1plus.ai/v1alpha1/namespaces/default/r1plusdeployments", probe),
        ("admin", "/api/v1/namespaces/default/configmaps", child),
        (ACCOUNT, "/api/v1/namespaces/default/configmaps", operator),
    )
    with people(server, ACCOUNT) as known, person(server, "admin", ("system:masters",)) as admin:
        known["admin"] = admin
        until(lambda: all("ValidatingAdmissionPolicy" in known[who].ask("POST", path, body).text for who, path, body in asked), "policies are in force")  # fmt: skip
        yield server
        asyncio.run(lift(server))
        until(lambda: not admin.ask("POST", asked[1][1], child).refused, "policies are lifted")
