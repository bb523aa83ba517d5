"""One install that has an image for TensorRT-LLM, and a node that has the GPU; both stand-ins, away again at the end."""

from collections.abc import Iterator
from typing import Any

import pytest

from devcluster.layout import NODE_NAME
from devcluster.steps import Steps
from e2e.gpus import images
from e2e.gpus.images import TENANT, VERSION, GpuImages
from e2e.gpus.node import L40S, Node
from e2e.gpus.suite import echo_suite
from e2e.kube import Kube
from e2e.own_images import OwnImages, require_embedded_cluster
from e2e.suites import OwnSuite
from e2e.tenants import Tenant, open_tenant


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> GpuImages:
    """The images that only these tests have."""
    require_embedded_cluster("a node of the embedded cluster is given a GPU that is none")
    return images.build(Steps(), tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def own_images(made: GpuImages) -> OwnImages:
    """With them on the node. TensorRT-LLM has an image, and vLLM has none."""
    return OwnImages(made.archives, {"gpu": {"tensorrtllm": {"image": made.runtime.pinned, "version": VERSION}}})


@pytest.fixture(scope="session")
def chart_values(chart_values: dict[str, Any]) -> dict[str, Any]:
    """Nobody signs checkpoints of a page."""
    return {**chart_values, "delivery": {"requireSignature": False}}


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
    with open_tenant(kube, TENANT, suite) as opened:
        yield opened
