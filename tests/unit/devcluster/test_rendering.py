"""What the components are told: files and flags that a trap of the machine or of Kubernetes hangs on."""

import itertools
import os
import socket
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from devcluster import addons
from devcluster.components import apiserver, containerd, kube_proxy, kubelet, scheduler
from devcluster.layout import NODE_ADDRESS, Layout, cluster_layout, free_ports, loopback_layout, reserve_port
from devcluster.pki import Authority, Certificate

IMAGES = {name: f"r1plus.local/{name}:abc" for name in addons.IMAGES}
MANIFESTS = sorted(path.stem for path in addons.MANIFESTS.glob("*.yaml"))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return replace(cluster_layout(), state=tmp_path / "state", run=tmp_path / "run")


def test_containerd_keeps_to_the_clusters_folders(layout: Layout) -> None:
    config = tomllib.loads(containerd.configuration(layout, "r1plus.local/pause:abc"))
    cri = config["plugins"][containerd.CRI_PLUGIN]
    assert cri["sandbox_image"] == "r1plus.local/pause:abc"
    assert cri["restrict_oom_score_adj"] is True
    assert cri["netns_mounts_under_state_dir"] is True
    assert Path(config["root"]).is_relative_to(layout.state)
    assert Path(config["state"]).is_relative_to(layout.run)
    assert Path(cri["containerd"]["runtimes"]["runc"]["options"]["Root"]).is_relative_to(layout.run)


def test_the_sweeper_starts_no_pods(layout: Layout) -> None:
    text = containerd.configuration(layout, "none", (*containerd.UNUSED_PLUGINS, containerd.CRI_PLUGIN))
    assert containerd.CRI_PLUGIN in tomllib.loads(text)["disabled_plugins"]


def test_the_kubelet_refreshes_config_maps_fast_and_reserves_nothing(layout: Layout) -> None:
    served = Certificate(layout.pki / "k.crt", layout.pki / "k.key")
    config = kubelet.configuration(layout, Authority(layout.pki), served, layout.config / "resolv.conf")
    assert config["syncFrequency"] == "5s"
    assert config["configMapAndSecretChangeDetectionStrategy"] == "Watch"
    assert config["cgroupDriver"] == "cgroupfs"
    assert config["failSwapOn"] is False
    assert config["maxPods"] == 60
    assert not {"kubeReserved", "systemReserved"} & set(config)


def test_kube_proxy_leaves_the_hosts_connection_table_alone(layout: Layout) -> None:
    config = kube_proxy.configuration("/kubeconfig", layout)
    assert config["mode"] == "nftables"
    assert config["conntrack"] == {"maxPerCore": 0}


@pytest.mark.parametrize("name", [pytest.param(name, id=f"{name} has no placeholder left") for name in MANIFESTS])
def test_a_manifest_is_yaml_with_every_value_filled_in(name: str, layout: Layout) -> None:
    text = addons.manifest(name, IMAGES, layout)
    documents = [document for document in yaml.safe_load_all(text) if document]
    assert documents
    assert all({"apiVersion", "kind", "metadata"} <= set(document) for document in documents)


def test_every_manifest_is_applied() -> None:
    assert sorted((*addons.BASE, addons.MONITORING, *addons.NEEDS_CRDS)) == MANIFESTS


def test_prometheus_takes_every_namespaces_monitors_and_rules(layout: Layout) -> None:
    documents = yaml.safe_load_all(addons.manifest("prometheus", IMAGES, layout))
    (spec,) = [document["spec"] for document in documents if document["kind"] == "Prometheus"]
    chosen = [spec[name] for name in spec if name.endswith("Selector")]
    assert len(chosen) == 6
    assert all(selector == {} for selector in chosen)


def test_the_clusters_audit_log_tells_of_everybody_but_its_own_parts_and_an_api_servers_alone_of_all(
    layout: Layout, tmp_path: Path
) -> None:
    *quiet, told = apiserver.audit_policy(layout)["rules"]
    left_out = {name for rule in quiet for kind in ("users", "userGroups") for name in rule.get(kind, ())}
    assert all(rule["level"] == "None" for rule in quiet)
    assert scheduler.USER in left_out
    assert not [
        name for name in left_out if name.startswith("system:serviceaccounts:r1plus") or name == "system:authenticated"
    ]
    assert told == {"level": "Metadata", "omitStages": ["RequestReceived"]}
    assert apiserver.audit_policy(loopback_layout(tmp_path))["rules"] == [told]


def test_an_api_server_alone_listens_on_loopback(tmp_path: Path) -> None:
    assert loopback_layout(tmp_path).api_url.startswith("https://127.0.0.1:")
    assert cluster_layout().api_url == f"https://{NODE_ADDRESS}:6443"


def test_free_ports_are_all_different_and_none_is_the_kernels() -> None:
    ports = [*free_ports(20), *free_ports(20)]
    assert len(set(ports)) == 40
    kernels_first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ports) < max(kernels_first, 22_000)


def test_a_port_that_somebody_listens_on_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devcluster.layout._turns", itertools.count())
    (taken,) = free_ports(1)
    with socket.create_server(("127.0.0.1", taken)):
        monkeypatch.setattr("devcluster.layout._turns", itertools.count())
        assert free_ports(1) != [taken]


def test_a_port_that_a_process_has_asked_for_is_no_other_ones_although_nobody_listens() -> None:
    (port,) = free_ports(1)
    told = f"from devcluster.layout import reserve_port; print(reserve_port({port}))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run([sys.executable, "-c", told], env=environment, capture_output=True, text=True, check=True)
    assert (other.stdout.strip(), reserve_port(port)) == ("False", True)
