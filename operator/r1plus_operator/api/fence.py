"""The fence at the API server: of the operator's pods it lets only the one write that the Lease names.

The operator's own fence looks at a clock before each write. Between the look and the write a process can be stopped
for any length of time, and a packet can lie in a network: only who commits the write can rule that out. A pod's token
says which pod it is, and the Lease says which pod leads. `generate` writes the chart's template from it.

The API server looks for the Lease before it looks whose request it is (seen, 1.34): refusing where there is no Lease,
or where it cannot be read, would refuse everybody's Deployments. So there the policy lets all pass, and the operator's
own fence is the only one.

Policy and binding stay when the chart goes (`helm.sh/resource-policy: keep`). An API server that was once without a
binding that names a Lease never watches Leases for policies again until it restarts (kubernetes#130887): a fence that
came back would compare every writer with the holder of long ago, and refuse them all.
"""

from r1plus_contract import names
from r1plus_operator.api.rbac import operator
from r1plus_operator.api.schema import Json
from r1plus_operator.runtime.lease import LEASE

SUFFIX = f"fence.{names.GROUP}"
"""Ends the policy's name, which is in each refusal: the API server sees a new holder some milliseconds late."""
_REFUSAL = f"this pod does not hold Lease {names.LEASE}, and only the one that does may write"
_KEPT = {"helm.sh/resource-policy": "keep"}
_API_VERSION = "admissionregistration.k8s.io/v1"
_WRITES = {"create", "patch", "delete"}
_NAME, _UID = (f"request.userInfo.extra['authentication.kubernetes.io/pod-{word}']" for word in ("name", "uid"))
_POD = (
    "has(request.userInfo.extra) && 'authentication.kubernetes.io/pod-uid' in request.userInfo.extra"
    f" ? {_NAME}[0] + '_' + {_UID}[0] : ''"
)
"""The writer as `config` spells it into the Lease; a token that names no pod is nobody's."""
_HOLDER = "variables.pod != '' && has(params.spec.holderIdentity) && params.spec.holderIdentity == variables.pod"


def policy(namespace: str, account: str) -> Json:
    """The ValidatingAdmissionPolicy for the service account `account` of the operator's `namespace`."""
    return {
        "apiVersion": _API_VERSION,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": _name(namespace, account), "annotations": _KEPT},
        "spec": {
            "failurePolicy": "Ignore",
            "paramKind": {"apiVersion": LEASE.api_version, "kind": LEASE.kind},
            "matchConstraints": {"resourceRules": _rules()},
            "matchConditions": [
                {"name": "the-operator", "expression": f"request.userInfo.username == '{_user(namespace, account)}'"},
            ],
            "variables": [{"name": "pod", "expression": _POD}],
            "validations": [{"expression": _HOLDER, "message": _REFUSAL, "reason": "Forbidden"}],
        },
    }


def binding(namespace: str, account: str) -> Json:
    """Its binding to the Lease in that namespace."""
    return {
        "apiVersion": _API_VERSION,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": _name(namespace, account), "annotations": _KEPT},
        "spec": {
            "policyName": _name(namespace, account),
            "paramRef": {"name": names.LEASE, "namespace": namespace, "parameterNotFoundAction": "Allow"},
            "validationActions": ["Deny"],
        },
    }


def _name(namespace: str, account: str) -> str:
    """Cluster-wide: a release of the same name in another namespace has a policy of its own."""
    return f"{namespace}.{account}.{SUFFIX}"


def _user(namespace: str, account: str) -> str:
    return f"system:serviceaccount:{namespace}:{account}"


def _rules() -> list[Json]:
    """Of all kinds that it writes, each once, whichever grants name it."""
    rules: list[Json] = []
    known: set[tuple[str, str]] = set()
    for grant in operator():
        new = [one for one in grant.resources if (grant.group, one) not in known] if _WRITES & set(grant.verbs) else []
        known |= {(grant.group, one) for one in new}
        rules += [_rule(grant.group, new)] if new else []
    return rules


def _rule(group: str, resources: list[str]) -> Json:
    return {
        "apiGroups": [group],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE", "DELETE"],
        "resources": resources,
    }
