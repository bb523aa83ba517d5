"""One install that has an image with vLLM for CPU, and a tenant; away again at the end."""

from collections.abc import Iterator

import pytest

from devcluster.steps import Steps
from e2e.kube import Kube
from e2e.own_images import OwnImages, require_embedded_cluster
from e2e.suites import OwnSuite, own_suite
from e2e.tenants import Tenant, open_tenant
from e2e.tiers import PER_STRATUM
from e2e.vllm import images
from e2e.vllm.images import VllmImages
from r1plus_operator.observe.suite_signature import generate_key

NAMESPACE = "team-vllm"


@pytest.fixture(scope="session")
def vllm_images(tmp_path_factory: pytest.TempPathFactory) -> VllmImages:
    """The images that only these tests have."""
    require_embedded_cluster("the image with vLLM is built for the embedded cluster")
    return images.build(Steps(), tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def own_images(vllm_images: VllmImages) -> OwnImages:
    """With them on the node, and the chart names the one with vLLM."""
    cpu = {"vllm": {"image": vllm_images.runtime.pinned, "version": images.read_version()}}
    return OwnImages(vllm_images.archives, {"cpu": cpu})


@pytest.fixture(scope="session")
def suite() -> OwnSuite:
    """What the gate asks: some of each stratum of the suite that OpenVINO's twin is held to."""
    return own_suite("full", generate_key(), PER_STRATUM["full"])


@pytest.fixture(scope="session")
def tenant(kube: Kube, vllm_images: VllmImages, suite: OwnSuite) -> Iterator[Tenant]:
    """A namespace that is gone at the end, with the engines of these tests."""
    with open_tenant(kube, NAMESPACE, suite) as opened:
        for engine in vllm_images.engines.values():
            opened.register(dict(engine.manifest))
        yield opened
