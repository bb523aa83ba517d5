"""The fence at the API server: of the operator's pods only the one that the Lease names may write.

The operator's own fence reads a clock before each write. Between that and the write a process can be stopped for any
length of time, and a packet can be delayed: only the API server can rule out a late write. A pod's token names the pod,
and the Lease names the pod that leads. `generate` writes the chart's template from it.

The API server reads the Lease before it checks whose request it is (seen, 1.34). A policy that fails without a readable
Lease would refuse everybody's Deployments. So then the policy allows all, and the operator's own fence is the only one.

Policy and binding stay when the chart is uninstalled (`helm.sh/resource-policy: keep`). An API server that was once
without a binding that names a Lease never watches Leases for policies again until it restarts (kubernetes#130887). A
fence that is installed again would compare every writer with a holder of long ago, and refuse them all.
"""

from r1plus_contract import names
from r1plus_operator.api.rbac import list_operator_grants, list_train_job_grants
from r1plus_operator.api.schema import Json
from r1plus_operator.runtime.lease import LEASE

SUFFIX = f"fence.{names.GROUP}"
"""End of the policy's name, which each refusal contains: the API server sees a new holder some milliseconds late."""
_REFUSAL = f"this pod does not hold Lease {names.LEASE}, and only the one that does may write"
_KEEP_ANNOTATION = {"helm.sh/resource-policy": "keep"}
_API_VERSION = "admissionregistration.k8s.io/v1"
_WRITES = {"create", "patch", "delete"}
_NAME, _UID = (f"request.userInfo.extra['authentication.kubernetes.io/pod-{word}']" for word in ("name", "uid"))
_POD = (
    "has(request.userInfo.extra) && 'authentication.kubernetes.io/pod-uid' in request.userInfo.extra"
    f" ? {_NAME}[0] + '_' + {_UID}[0] : ''"
)
"""The writer as `config` writes it into the Lease; empty for a token that names no pod."""
_HOLDER = "variables.pod != '' && has(params.spec.holderIdentity) && params.spec.holderIdentity == variables.pod"


def build_policy(namespace: str, account: str) -> Json:
    """Build the ValidatingAdmissionPolicy for the service account `account` of the operator's `namespace`."""
    return {
        "apiVersion": _API_VERSION,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": _format_name(namespace, account), "annotations": _KEEP_ANNOTATION},
        "spec": {
            "failurePolicy": "Ignore",
            "paramKind": {"apiVersion": LEASE.api_version, "kind": LEASE.kind},
            "matchConstraints": {"resourceRules": _build_rules()},
            "matchConditions": [
                {
                    "name": "the-operator",
                    "expression": f"request.userInfo.username == '{_format_user(namespace, account)}'",
                },
            ],
            "variables": [{"name": "pod", "expression": _POD}],
            "validations": [{"expression": _HOLDER, "message": _REFUSAL, "reason": "Forbidden"}],
        },
    }


def build_binding(namespace: str, account: str) -> Json:
    """Build the policy's binding to the Lease in that namespace."""
    return {
        "apiVersion": _API_VERSION,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": _format_name(namespace, account), "annotations": _KEEP_ANNOTATION},
        "spec": {
            "policyName": _format_name(namespace, account),
            "paramRef": {"name": names.LEASE, "namespace": namespace, "parameterNotFoundAction": "Allow"},
            "validationActions": ["Deny"],
        },
    }


def _format_name(namespace: str, account: str) -> str:
    """Return the policy's name, unique in the cluster: releases of one name may exist in several namespaces."""
    return f"{namespace}.{account}.{SUFFIX}"


def _format_user(namespace: str, account: str) -> str:
    return f"system:serviceaccount:{namespace}:{account}"


def _build_rules() -> list[Json]:
    """Build rules for all kinds that the operator writes, each once."""
    rules: list[Json] = []
    fenced_resources: set[tuple[str, str]] = set()
    for grant in (*list_operator_grants(), *list_train_job_grants()):
        new_resources = (
            [one for one in grant.resources if (grant.group, one) not in fenced_resources]
            if _WRITES & set(grant.verbs)
            else []
        )
        fenced_resources |= {(grant.group, one) for one in new_resources}
        rules += [_build_rule(grant.group, new_resources)] if new_resources else []
    return rules


def _build_rule(group: str, resources: list[str]) -> Json:
    return {
        "apiGroups": [group],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE", "DELETE"],
        "resources": resources,
    }
