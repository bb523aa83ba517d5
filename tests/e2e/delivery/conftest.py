"""One install whose Jobs may fetch from the cluster's own pods, and one artifact server for all tests."""

from typing import Any

import pytest

from devcluster.pki import Authority
from e2e.delivery import artifacts
from e2e.delivery.artifacts import Artifacts
from e2e.parts import Parts
from e2e.target import Target

PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
"""Wherever a cluster has its pods."""


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Vouches for the artifact server."""
    made = Authority(tmp_path_factory.mktemp("pki"))
    made.ensure()
    return made


@pytest.fixture(scope="session")
def chart_values(authority: Authority) -> dict[str, Any]:
    """Where Jobs may go, and whom they believe."""
    volume = {"className": "", "accessMode": "ReadWriteOnce"}
    return {"delivery": {"cidrs": PRIVATE, "ca": authority.certificate.read_text(), "volume": volume}}


@pytest.fixture(scope="session")
def server(target: Target, built: Parts, authority: Authority) -> Artifacts:
    """It has the demo's smallest engine."""
    issued = authority.issue("server", artifacts.HOST, hosts=[artifacts.HOST])
    return artifacts.serve(target.kube, built.engines["smollm2-edge-q4-1"], built.refs["monitor"], issued)
