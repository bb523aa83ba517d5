"""One install that has an image for TensorRT-LLM, and a node that has the GPU; both stand-ins, away again at the end."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from devcluster import kubeconfig
from devcluster.layout import NODE_NAME
from devcluster.steps import Steps
from e2e import chart
from e2e.gpus import images
from e2e.gpus.images import TENANT, VERSION, GpuImages
from e2e.gpus.node import L40S, Node
from e2e.gpus.suite import echo_suite
from e2e.kube import Kube
from e2e.parts import Parts
from e2e.suites import OwnSuite
from e2e.tenants import Tenant


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> GpuImages:
    """The images that only these tests have."""
    if kubeconfig.of_ones_own():
        pytest.skip("a node of the embedded cluster is given a GPU that is none; unset KUBECONFIG")
    return images.build(Steps(), tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def built(made: GpuImages, built: Parts) -> Parts:
    """With them on the node."""
    return replace(built, archives=(*built.archives, *made.archives))


@pytest.fixture(scope="session")
def chart_values(built: Parts, made: GpuImages) -> dict[str, Any]:
    """TensorRT-LLM has an image, vLLM has none, and nobody signs checkpoints of a page."""
    gpu = {"tensorrtllm": {"image": made.runtime.pinned, "version": VERSION}}
    return {
        "images": {**chart.values_of(built)["images"], "gpu": gpu},
        "delivery": {"requireSignature": False},
    }


@pytest.fixture(scope="session")
def node(kube: Kube) -> Iterator[Node]:
    """With one L40S."""
    found = Node(kube, NODE_NAME)
    try:
        found.has(L40S, 1)
        yield found
    finally:
        found.has_none()


@pytest.fixture(scope="session")
def suite() -> OwnSuite:
    """What the gate asks."""
    return echo_suite()


@pytest.fixture(scope="session")
def tenant(kube: Kube, node: Node, suite: OwnSuite) -> Iterator[Tenant]:
    """A namespace that is gone at the end, with the engines of these tests."""
    found = Tenant(kube, TENANT, print)
    found.make()
    suite.put(kube, TENANT)
    yield found
    for engine in kube.all("r1plusengines"):
        if engine["spec"]["family"].startswith("bank-gpu"):
            kube.delete("r1plusengines", None, engine["metadata"]["name"])
    found.clear()
