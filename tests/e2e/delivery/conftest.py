"""One install whose Jobs may fetch from the cluster's own pods, and one artifact server for all tests."""

from typing import Any

import pytest

from devcluster.cache import cache_dir
from devcluster.pki import Authority, Certificate
from devcluster.shell import output
from e2e.delivery import artifacts
from e2e.delivery.artifacts import Artifacts
from e2e.objects import EDGE_ENGINE
from e2e.parts import Parts
from e2e.target import Target
from r1plus_model_repo.importing.package.signature import sign
from r1plus_model_repo.importing.smollm2 import build_engines

PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
"""Wherever a cluster has its pods."""


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Vouches for the artifact server."""
    made = Authority(tmp_path_factory.mktemp("pki"))
    made.ensure()
    return made


@pytest.fixture(scope="session")
def signer(authority: Authority) -> Certificate:
    """Who vouches for the engine: a key pair as any other."""
    return authority.issue("signer", "signer")


@pytest.fixture(scope="session")
def chart_values(authority: Authority, signer: Certificate) -> dict[str, Any]:
    """Where Jobs may go, and whom they believe."""
    public = output(["openssl", "ec", "-in", signer.key, "-pubout"])
    return {"delivery": {"cidrs": PRIVATE, "ca": authority.certificate.read_text(), "trustedKeys": [public]}}


@pytest.fixture(scope="session")
def server(
    target: Target, built: Parts, authority: Authority, signer: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Artifacts:
    """It has the demo's smallest engine, signed."""
    folder = tmp_path_factory.mktemp("signed")
    (folder / "engine").symlink_to(build_engines(cache_dir() / "engines", print)[EDGE_ENGINE].folder)
    signature = sign(folder, signer.key).read_text()
    issued = authority.issue("server", artifacts.HOST, hosts=[artifacts.HOST])
    return artifacts.serve(target.kube, built.engines[EDGE_ENGINE], built.refs["monitor"], issued, signature)
