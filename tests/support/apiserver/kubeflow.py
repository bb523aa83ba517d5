"""Kubeflow's trainer and JobSet beside a real API server: their own CRDs, rights and webhooks, and one runtime.

Their controllers are processes of this machine, as kube-controller-manager is. All manifests are those of their Go
modules. Changed is where a webhook leads: to the process, and not to a Service, which no node would answer for.
"""

import asyncio
import base64
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from devcluster import binaries, daemons
from devcluster.cache import binary
from devcluster.components.apiserver import write_kubeconfig
from devcluster.daemons import Daemon
from devcluster.layout import Layout
from devcluster.parts import TRAINING_BINARIES, go_binary
from devcluster.pki import Authority
from devcluster.steps import Steps
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ApiError
from r1plus_operator.runtime.resources import Resource
from support.apiserver.manifests import ADMISSION, CLUSTER_ROLE, CLUSTER_ROLE_BINDING, Json, cluster_role_binding, user
from support.apiserver.server import install_crd
from support.ports import free_port
from support.waiting import eventually

RUNTIME = Resource("trainer.kubeflow.org", "v1alpha1", "clustertrainingruntimes", "ClusterTrainingRuntime", False)
JOB_SET = Resource("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet")
CONTROLLERS = tuple(
    f"system:serviceaccount:kubeflow-system:{account}" for account in ("trainer", "jobset-controller-manager")
)
"""Their accounts, the trainer's under a shorter name: that of a certificate is limited."""
TORCH = "torch-distributed"
"""The runtime for torch that the trainer's release has."""
_WEBHOOKS = tuple(
    Resource(ADMISSION, "v1", f"{kind.lower()}s", kind, False)
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
)
_GROUPS = ("system:serviceaccounts", "system:authenticated")


@dataclass(frozen=True, slots=True)
class _Controller:
    """A controller: its program, where its module has its manifests, and its settings."""

    name: str
    user: str
    crds: str
    role: str
    webhooks: str
    patches: str
    """Folder with the module's patches of its webhooks; empty: none matters here."""
    configuration: Json

    @property
    def folder(self) -> Path:
        return binaries.module_folder(go_binary(self.name))


def _list_controllers() -> tuple[_Controller, ...]:
    leader: Json = {"leaderElection": {"leaderElect": False}}
    return (
        _Controller(
            "jobset",
            CONTROLLERS[1],
            "config/components/crd/bases",
            "config/components/rbac/role.yaml",
            "config/components/webhook/manifests.yaml",
            "config/components/webhook/patches",
            {
                "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
                "internalCertManagement": {"enable": False},
                **leader,
            },
        ),
        _Controller(
            "trainer-controller-manager",
            CONTROLLERS[0],
            "manifests/base/crds",
            "manifests/base/rbac/role.yaml",
            "manifests/base/webhook/manifests.yaml",
            "",
            {
                "apiVersion": "config.trainer.kubeflow.org/v1alpha1",
                "certManagement": {"enable": False},
                **leader,
            },
        ),
    )


async def install_kubeflow(layout: Layout, client: ApiClient) -> None:
    """Install and start both, and the runtime; return when TrainJobs are admitted.

    They end with the API server of that layout, and with the process that started them.
    """
    binaries.build(Steps(len(TRAINING_BINARIES)), TRAINING_BINARIES)
    for controller in _list_controllers():
        crds = [crd for path in sorted((controller.folder / controller.crds).glob("*_*.yaml")) for crd in _load(path)]
        await asyncio.gather(*(install_crd(client, crd) for crd in crds))
        for role in _load(controller.folder / controller.role):
            if role["kind"] == CLUSTER_ROLE.kind:
                await client.apply(CLUSTER_ROLE, _rename(role, controller.name), field_manager="test")
                binding = cluster_role_binding(controller.name, controller.name, user(controller.user))
                await client.apply(CLUSTER_ROLE_BINDING, binding, field_manager="test")
        authority = Authority(layout.pki)
        port = _start(layout, authority, controller)
        ca = base64.b64encode(authority.certificate.read_bytes()).decode()
        for webhooks in _read_webhooks(controller):
            for webhook in webhooks["webhooks"]:
                path = webhook["clientConfig"]["service"]["path"]
                webhook["clientConfig"] = {"url": f"https://127.0.0.1:{port}{path}", "caBundle": ca}
            kind = next(one for one in _WEBHOOKS if one.kind == webhooks["kind"])
            await client.apply(kind, _rename(webhooks, controller.name), field_manager="test")
    (runtime,) = _load(_list_controllers()[1].folder / "manifests/base/runtimes/torch_distributed.yaml")

    async def is_admitted() -> bool:
        await client.apply(RUNTIME, runtime, field_manager="platform")
        return True

    await eventually(is_admitted, "the trainer's webhook admits a runtime", retry_on=(ApiError,))


def _start(layout: Layout, authority: Authority, controller: _Controller) -> int:
    """Start a controller, again if it runs; return the port of its webhooks."""
    daemons.stop(controller.name, layout)
    port, health, folder = free_port(), free_port(), layout.state / controller.name
    certificates = folder / "k8s-webhook-server" / "serving-certs"  # Where it looks, below TMPDIR.
    certificates.mkdir(parents=True, exist_ok=True)
    name = f"webhook-{controller.name}"
    certificate = authority.issue(name, name, hosts=("localhost", "127.0.0.1"))
    shutil.copyfile(certificate.certificate, certificates / "tls.crt")
    shutil.copyfile(certificate.key, certificates / "tls.key")
    settings: Json = {
        "kind": "Configuration",
        "webhook": {"port": port, "host": "127.0.0.1"},
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
        "metrics": {"bindAddress": "0"},
        **controller.configuration,
    }
    (folder / "configuration.yaml").write_text(yaml.safe_dump(settings))
    command = [str(binary(controller.name)), f"--config={folder / 'configuration.yaml'}"]
    config = write_kubeconfig(controller.name, controller.user, _GROUPS, layout, authority)
    env = {"TMPDIR": str(folder), "KUBECONFIG": str(config)}
    daemons.start(Daemon(controller.name, tuple(command), env), layout, die_with_parent=True)
    return port


def _read_webhooks(controller: _Controller) -> Iterator[Json]:
    """Yield its webhook configurations, patched as its own kustomization does."""
    for webhooks in _load(controller.folder / controller.webhooks):
        kind = webhooks["kind"].removesuffix("WebhookConfiguration").lower()
        if controller.patches:
            text = (controller.folder / controller.patches / f"{kind}-patch.yaml").read_text()
            patches: list[Json] = yaml.safe_load(text)
            for patch in patches:
                webhooks["webhooks"][int(patch["path"].rpartition("/")[2])] = patch["value"]
        yield webhooks


def _load(path: Path) -> list[Json]:
    return [found for found in yaml.safe_load_all(path.read_text()) if found]


def _rename(body: Json, name: str) -> Json:
    return {**body, "metadata": {"name": name}}
