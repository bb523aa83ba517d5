"""What OpenShift does to pods, by admission policies that imitate it, in the namespaces that a test annotates."""

from collections.abc import Iterator
from contextlib import contextmanager

import yaml

from r1plus_operator.api import kinds
from r1plus_operator.runtime.resources import Resource
from support.apiserver.manifests import ADMISSION, POLICY, POLICY_BINDING, Json, manifest, pod
from support.apiserver.people import Answer, Person
from support.paths import TESTS
from support.waiting import wait_until

FIRST_USER, LEVEL = 1_000_680_000, "s0:c26,c15"
RANGE = {"openshift.io/sa.scc.uid-range": f"{FIRST_USER}/10000", "openshift.io/sa.scc.mcs": LEVEL}
"""Annotations of a namespace that OpenShift has seen."""
MANIFEST = TESTS / "support" / "restricted_v2.yaml"
REFUSED = "unable to validate against any security context constraint"
MUTATION, MUTATION_BINDING = (
    Resource(ADMISSION, "v1beta1", plural, kind, False)
    for plural, kind in (
        ("mutatingadmissionpolicies", "MutatingAdmissionPolicy"),
        ("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding"),
    )
)
APPLIED = {kind.kind: kind for kind in (MUTATION, MUTATION_BINDING, POLICY, POLICY_BINDING)}


@contextmanager
def restricting(admin: Person, namespace: str) -> Iterator[None]:
    """Let pods be admitted as OpenShift admits them, once that is in force; asked in this namespace, which gets a range."""
    objects = list(yaml.safe_load_all(MANIFEST.read_text()))
    admin.do("POST", kinds.NAMESPACE.path(), manifest(kinds.NAMESPACE, namespace))
    admin.do("PATCH", kinds.NAMESPACE.path(name=namespace), {"metadata": {"annotations": RANGE}})
    for one in objects:
        admin.do("POST", APPLIED[one["kind"]].path(), one)
    wait_until(lambda: str(FIRST_USER) in ask(admin, namespace).text, "users are assigned")
    wait_until(lambda: REFUSED in ask(admin, namespace, runAsUser=1000).text, "other users are refused")
    yield
    for one in objects:
        admin.do("DELETE", APPLIED[one["kind"]].path(name=one["metadata"]["name"]))


def ask(admin: Person, namespace: str, **context: int) -> Answer:
    """Make a pod with this security context, as a dry run."""
    return admin.ask("POST", kinds.POD.path(namespace), pod("probe", securityContext=context))


def assert_admitted(admitted: Json, template: Json) -> None:
    """Assert that a pod has all that is filled in, and that its template named no user."""
    assert admitted["metadata"]["annotations"]["openshift.io/scc"] == "restricted-v2"
    assert template["securityContext"].keys() == {"runAsNonRoot", "seccompProfile"}
    context = admitted["spec"]["securityContext"]
    assert (context["fsGroup"], context["seLinuxOptions"]) == (FIRST_USER, {"level": LEVEL})
    for one in (*admitted["spec"].get("initContainers", ()), *admitted["spec"]["containers"]):
        own = one["securityContext"]
        assert (own["runAsUser"], own["runAsNonRoot"], own["allowPrivilegeEscalation"]) == (FIRST_USER, True, False)
        assert own["capabilities"] == {"drop": ["ALL"]}
