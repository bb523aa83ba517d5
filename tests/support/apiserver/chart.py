"""The chart's rights, policies and decoy on the real API server, as `helm install` would send them."""

import asyncio
import functools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from devcluster import binaries
from devcluster.apiserver_only import ApiServer
from devcluster.cache import binary
from devcluster.parts import KUBERNETES
from devcluster.steps import Steps
from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import ApiClient
from support.apiserver.manifests import (
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    MARK,
    POLICY,
    POLICY_BINDING,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE_ACCOUNT,
    Json,
    config_map,
    manifest,
    r1plus_deployment,
)
from support.apiserver.people import administrator, people
from support.apiserver.rights import OPERATOR, OPERATOR_NAMESPACE
from support.apiserver.server import CHART, started_with_crds
from support.waiting import wait_until

DECOY_NAMESPACE, PULL_SECRET = "r1plus-decoy", "registry"
GATEWAY_IMAGE = "registry.local/gateway:1"
FIRST = (kinds.NAMESPACE, SERVICE_ACCOUNT, SECRET, CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING)
POLICIES = (POLICY, POLICY_BINDING)
INSTALLED = {resource.kind: resource for resource in (*FIRST, *POLICIES)}
"""What is installed of the chart: no workload."""


def helm(*words: str, kubeconfig: Path | None = None, home: Path | None = None) -> str:
    """Run helm and return what it prints."""
    if not binary("helm").exists():
        binaries.build(Steps(1), ("helm",))
    command = [str(binary("helm")), *words, *([f"--kubeconfig={kubeconfig}"] if kubeconfig else [])]
    env = os.environ | ({"HELM_CACHE_HOME": str(home), "HELM_CONFIG_HOME": str(home)} if home else {})
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def _render_text(values: tuple[str, ...]) -> str:
    words = ["template", "r1plus", str(CHART), f"--namespace={OPERATOR_NAMESPACE}", f"--kube-version={KUBERNETES}"]
    chosen = (
        "leaderElection.fence=false",
        "images.requireDigests=false",
        f"imagePullSecrets={{{PULL_SECRET}}}",
        f"images.gateway={GATEWAY_IMAGE}",
    )
    return helm(*words, *(f"--set={value}" for value in (*chosen, *values)))


def render_objects(*values: str) -> list[Json]:
    """Return everything that `helm install r1plus` with these values would send, the leader's fence excepted.

    The fence is of the operator's replicas: it looks at a Lease that nobody holds here.
    """
    return [found for found in yaml.safe_load_all(_render_text(values)) if found]


def policies() -> list[Json]:
    """Return the policies and their bindings."""
    wanted = {resource.kind for resource in POLICIES}
    return [found for found in render_objects() if found["kind"] in wanted]


@contextmanager
def started_with_chart(*values: str) -> Iterator[ApiServer]:
    """Start an API server with the controller manager, and with the chart's rights and policies in force.

    `values` are the chart's, NAME=VALUE, where they are not the default.
    """
    with started_with_crds(controller_manager=True) as server:
        asyncio.run(_install(server, values))
        _wait_for_policies(server, refuses="admissionPolicy.action=Audit" not in values)
        yield server


async def _install(server: ApiServer, values: tuple[str, ...]) -> None:
    """Apply the chart's namespaces, accounts, rights and policies; the bindings of policies last, one after the other."""
    wanted = [found for found in render_objects(*values) if found["kind"] in INSTALLED]
    wanted += [manifest(kinds.NAMESPACE, name) for name in (OPERATOR_NAMESPACE, "monitoring")]
    for found in wanted:
        found["metadata"].pop("annotations", None)
    steps = ([kinds.NAMESPACE.kind], [kind.kind for kind in FIRST[1:]], [POLICY.kind])
    bindings = sorted((one for one in wanted if one["kind"] == POLICY_BINDING.kind), key=_is_asked_for)
    async with ApiClient.from_kubeconfig(server.kubeconfig) as admin:
        for step in (*([one for one in wanted if one["kind"] in step] for step in steps), *([one] for one in bindings)):
            await asyncio.gather(*(admin.apply(INSTALLED[one["kind"]], one, field_manager="helm") for one in step))


def _is_asked_for(binding: Json) -> bool:
    """Return whether `_wait_for_policies` asks for this one: when it holds, those that were written before hold."""
    return str(binding["spec"]["policyName"]).endswith(("-deployments", "-children", "-reach"))


def _wait_for_policies(server: ApiServer, *, refuses: bool) -> None:
    """Each takes hold a moment after it was written: wait until all that are asked here say no, or warn."""
    deployments, config_maps = (kind.path("default") for kind in (kinds.R1PLUS_DEPLOYMENT, kinds.CONFIG_MAP))
    with people(server, OPERATOR) as known, administrator(server) as admin:
        questions = (
            (admin, deployments, r1plus_deployment("probe")),
            (admin, config_maps, config_map("probe", labels=MARK)),
            (known[OPERATOR], config_maps, config_map("probe")),
        )

        def are_in_force() -> bool:
            answers = (who.ask("POST", path, body) for who, path, body in questions)
            return all(POLICY.kind in answer.text or (not refuses and answer.warnings) for answer in answers)

        wait_until(are_in_force, "the policies are in force")
