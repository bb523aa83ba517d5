"""One install that has an image with vLLM for CPU, and a tenant; away again at the end."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from devcluster import kubeconfig
from devcluster.steps import Steps
from e2e import chart
from e2e.kube import Kube
from e2e.parts import Parts
from e2e.suites import OwnSuite, own_suite
from e2e.tenants import Tenant
from e2e.tiers import PER_STRATUM
from e2e.vllm import images
from e2e.vllm.images import VllmImages
from r1plus_operator.observe.suite_signature import generate_key

NAMESPACE = "team-vllm"


@pytest.fixture(scope="session")
def vllm_images(tmp_path_factory: pytest.TempPathFactory) -> VllmImages:
    """The images that only these tests have."""
    if kubeconfig.of_ones_own():
        pytest.skip("the image with vLLM is built for the embedded cluster; unset KUBECONFIG")
    return images.build(Steps(), tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def built(vllm_images: VllmImages, built: Parts) -> Parts:
    """With them on the node."""
    return replace(built, archives=(*built.archives, *vllm_images.archives))


@pytest.fixture(scope="session")
def chart_values(built: Parts, vllm_images: VllmImages, chart_values: dict[str, Any]) -> dict[str, Any]:
    """Name the image with vLLM."""
    cpu = {"vllm": {"image": vllm_images.runtime.pinned, "version": images.read_version()}}
    return {**chart_values, "images": {**chart.values_of(built)["images"], "cpu": cpu}}


@pytest.fixture(scope="session")
def suite() -> OwnSuite:
    """What the gate asks: some of each stratum of the suite that OpenVINO's twin is held to."""
    return own_suite("full", generate_key(), PER_STRATUM)


@pytest.fixture(scope="session")
def tenant(kube: Kube, vllm_images: VllmImages, suite: OwnSuite) -> Iterator[Tenant]:
    """A namespace that is gone at the end, with the engines of these tests."""
    found = Tenant(kube, NAMESPACE, print)
    found.make()
    suite.put(kube, NAMESPACE)
    for engine in vllm_images.engines.values():
        kube.apply(dict(engine.manifest))
    yield found
    found.clear()
    for name in vllm_images.engines:
        kube.delete("r1plusengines", None, name)
