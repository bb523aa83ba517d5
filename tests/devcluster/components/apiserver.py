"""kube-apiserver: Node and RBAC authorisation, Pod Security admission, an audit log."""

import json
from typing import Any

from devcluster import kubeconfig
from devcluster.cache import binary
from devcluster.daemons import Daemon
from devcluster.layout import API_SERVICE_ADDRESS, CLUSTER_DOMAIN, SERVICE_NETWORK, Layout
from devcluster.pki import Authority, Certificate

NAME = "kube-apiserver"
ADMIN_GROUP = "system:masters"
OWN_PARTS = (
    "system:nodes",
    "system:serviceaccounts:kube-system",
    "system:serviceaccounts:local-path-storage",
    "system:serviceaccounts:monitoring",
)
OWN_USERS = (
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:kube-proxy",
    "apiserver-kubelet",
)
"""The cluster's own parts, by group and by name."""
ISSUER = f"https://kubernetes.default.svc.{CLUSTER_DOMAIN}"


def daemon(layout: Layout, authority: Authority) -> Daemon:
    """The API server's command line. `InternalIP` first, or `kubectl logs` and `exec` would wait on DNS."""
    served = authority.issue(NAME, NAME, hosts=_hosts(layout))
    to_etcd = authority.issue("apiserver-etcd", "apiserver")
    to_kubelet = authority.issue("apiserver-kubelet", "apiserver", (ADMIN_GROUP,))
    return Daemon(
        NAME,
        (
            str(binary(NAME)),
            *_serving(layout, authority, served),
            f"--etcd-servers={layout.etcd_url}",
            f"--etcd-cafile={authority.certificate}",
            f"--etcd-certfile={to_etcd.certificate}",
            f"--etcd-keyfile={to_etcd.key}",
            f"--kubelet-certificate-authority={authority.certificate}",
            f"--kubelet-client-certificate={to_kubelet.certificate}",
            f"--kubelet-client-key={to_kubelet.key}",
            "--kubelet-preferred-address-types=InternalIP",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
            # Off by default in 1.34: tests imitate by it what other clusters do to pods.
            "--feature-gates=MutatingAdmissionPolicy=true",
            "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
            "--allow-privileged=true",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={authority.service_account_public_key}",
            f"--service-account-signing-key-file={authority.service_account_key}",
            *_audit(layout),
        ),
    )


def _serving(layout: Layout, authority: Authority, served: Certificate) -> tuple[str, ...]:
    """Where it listens. Alone on a host it keeps to loopback; in its own namespace it may listen everywhere."""
    return (
        f"--bind-address={'127.0.0.1' if layout.netns is None else '0.0.0.0'}",
        f"--advertise-address={_advertised(layout)}",
        f"--secure-port={layout.api_port}",
        f"--tls-cert-file={served.certificate}",
        f"--tls-private-key-file={served.key}",
        f"--client-ca-file={authority.certificate}",
        f"--endpoint-reconciler-type={'none' if layout.netns is None else 'lease'}",
    )


def _advertised(layout: Layout) -> str:
    """Kubernetes refuses a loopback address here; alone, nobody reads what it advertises (documentation range)."""
    return "192.0.2.1" if layout.netns is None else layout.address


def audit_policy(layout: Layout) -> dict[str, Any]:
    """Who did which verb to what, without bodies: tests read which verbs the operator used, and who was refused.

    In the whole cluster its own parts are left out, and what its administrator reads: they ask most, and nobody asks what they
    did. A policy cannot choose by the answer, so that of everybody else each request is told, refused or not.
    """
    quiet: list[dict[str, Any]] = [
        {"level": "None", "userGroups": list(OWN_PARTS)},
        {"level": "None", "users": list(OWN_USERS)},
        {"level": "None", "userGroups": [ADMIN_GROUP], "verbs": ["get", "list", "watch"]},
    ]
    told = {"level": "Metadata", "omitStages": ["RequestReceived"]}
    rules = [told] if layout.netns is None else [*quiet, told]
    return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}


def _audit(layout: Layout) -> tuple[str, ...]:
    policy = audit_policy(layout)
    path = layout.config / "audit-policy.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(policy))
    layout.logs.mkdir(parents=True, exist_ok=True)
    return (
        f"--audit-policy-file={path}",
        f"--audit-log-path={layout.logs / 'audit.log'}",
        "--audit-log-mode=batch",
        "--audit-log-maxsize=200",
        "--audit-log-maxbackup=3",
    )


def _hosts(layout: Layout) -> tuple[str, ...]:
    names = (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{CLUSTER_DOMAIN}",
        "localhost",
    )
    return (*names, "127.0.0.1", API_SERVICE_ADDRESS, *([layout.address] if layout.address != "127.0.0.1" else []))


def write_kubeconfig(name: str, user: str, groups: tuple[str, ...], layout: Layout, authority: Authority) -> str:
    """Issue a client certificate and write the kubeconfig that uses it; returns its path."""
    client = authority.issue(f"client-{name}", user, groups)
    return str(kubeconfig.write(layout.kubeconfig(name), layout.api_url, authority, client))
