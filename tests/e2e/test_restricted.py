"""A namespace that assigns users to its pods and refuses every other, as OpenShift's do: `edge` serves in it, isolated.

`make e2e STORY=restricted`. The admission is imitated (`tests/support/restricted_v2.yaml`); the pods run as users of the range.
"""

from collections.abc import Iterator

import pytest

from e2e import story
from e2e.kube import Kube
from e2e.story import Name
from e2e.suites import own_suite
from e2e.target import Target
from e2e.tenants import Tenant
from e2e.tiers import PER_STRATUM, THRESHOLDS
from e2e.waiting import wait_for
from r1plus_cli.deployment.view import ISOLATED
from r1plus_contract.names import DECOY, LABEL_DEPLOYMENT
from r1plus_operator.observe.suite_signature import generate_key
from support.apiserver.openshift import FIRST_USER, MANIFEST, RANGE, REFUSED

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(7200)]

DECOY_NAMESPACE = "r1plus-decoy"


@pytest.fixture(scope="module")
def tenant(target: Target) -> Iterator[Tenant]:
    """A tenant whose namespace has a range, as the decoy's has; other namespaces are left alone."""
    made = Tenant(target.kube, "team-restricted", print)
    made.make()
    target.kube.kubectl("apply", f"--filename={MANIFEST}")
    give_range(target.kube, made.namespace)
    wait_for(lambda: REFUSED in refusal(target.kube, made.namespace), "another user is refused")
    # The decoy begins again at once: a pod from before the admission is in force would stay as it is.
    give_range(target.kube, DECOY_NAMESPACE)
    yield made
    target.kube.kubectl("delete", f"--filename={MANIFEST}")
    target.kube.kubectl("annotate", "namespace", DECOY_NAMESPACE, *(f"{key}-" for key in RANGE))
    made.clear()


def give_range(kube: Kube, namespace: str) -> None:
    """What OpenShift notes on each namespace."""
    kube.kubectl("annotate", "namespace", namespace, *(f"{key}={value}" for key, value in RANGE.items()))


def refusal(kube: Kube, namespace: str) -> str:
    """What is said of a pod that names a user, as a dry run; empty where it is taken."""
    overrides = '{"spec": {"securityContext": {"runAsUser": 1000}}}'
    words = (
        "run",
        "other",
        "--image=other",
        "--dry-run=server",
        f"--namespace={namespace}",
        f"--overrides={overrides}",
    )
    try:
        kube.kubectl(*words)
    except RuntimeError as error:
        return str(error)
    return ""


def test_a_deployment_is_delivered_served_and_isolated_where_users_are_assigned(tenant: Tenant) -> None:
    suite = own_suite("edge", generate_key(), PER_STRATUM["edge"])
    suite.put(tenant.kube, tenant.namespace)
    accuracy = {**suite.held, "threshold": THRESHOLDS["edge"]}
    name = tenant.apply("triage", "edge", context={"maxTokens": 1024}, accuracy=accuracy, delivery={"mode": "Volume"})
    tenant.until_ready(name)
    assert users(tenant.kube, name.namespace, name.name) == {FIRST_USER}
    wait_for(
        lambda: users(tenant.kube, DECOY_NAMESPACE, DECOY) == {FIRST_USER}, "the decoy runs as a user of the range"
    )
    wait_for(lambda: is_isolated(tenant.kube, name), "the isolation test says that walls hold", tenant.evidence(name))


def is_isolated(kube: Kube, name: Name) -> bool:
    return story.view(kube, name).status_of(ISOLATED) == "True"


def users(kube: Kube, namespace: str, deployment: str) -> set[int | None]:
    """As whom the containers of a deployment's living pods run; None: as the pod says."""
    pods = kube.all("pods", namespace, f"{LABEL_DEPLOYMENT}={deployment}")
    living = [pod["spec"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    return {one["securityContext"].get("runAsUser") for pod in living for one in pod["containers"]}
