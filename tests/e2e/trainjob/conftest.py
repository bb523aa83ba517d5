"""One install that trains students, Kubeflow's trainer beside it, and a tenant; away again at the end."""

from support.model import environment

environment.add_to_path()

import asyncio  # noqa: E402 - the path comes first: the teacher is trained with torch, in this process
from collections.abc import Iterator  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

from devcluster.steps import Steps  # noqa: E402
from e2e.kube import Kube  # noqa: E402
from e2e.own_images import OwnImages, require_embedded_cluster  # noqa: E402
from e2e.suites import OwnSuite, sealed  # noqa: E402
from e2e.target import EmbeddedTarget, Target  # noqa: E402
from e2e.tenants import Tenant, open_tenant  # noqa: E402
from e2e.trainjob import images  # noqa: E402
from e2e.trainjob.images import TrainJobImages  # noqa: E402
from r1plus_contract.inference import FinishReason  # noqa: E402
from r1plus_contract.metrics import OutcomeLabel  # noqa: E402
from r1plus_contract.suites.suite import SCORER_VERSION, SuiteHeader, SuiteSampling  # noqa: E402
from r1plus_contract.suites.suite_reference import RecordedAnswer  # noqa: E402
from r1plus_operator.observe.suite_signature import generate_key  # noqa: E402
from r1plus_operator.runtime.client import ApiClient  # noqa: E402
from support.apiserver.kubeflow import CONTROLLERS, install_kubeflow  # noqa: E402
from support.model.forms import split_questions  # noqa: E402

# The teacher is too small for two threads: they would wait for each other, and longer where others compute.
torch.set_num_threads(1)
NAMESPACE = "team-trainjob"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> TrainJobImages:
    """The images that only these tests have."""
    require_embedded_cluster("Kubeflow's trainer is installed into the embedded cluster")
    return images.build(Steps(), tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def own_images(made: TrainJobImages) -> OwnImages:
    """With them on the node, and the chart names the trainer's."""
    return OwnImages(made.archives, {"trainer": made.trainer.pinned})


@pytest.fixture(scope="session")
def chart_values(chart_values: dict[str, Any]) -> dict[str, Any]:
    """Let the operator write TrainJobs."""
    return {**chart_values, "trainJobs": {"enabled": True, "controllers": list(CONTROLLERS)}}


@pytest.fixture(scope="session")
def kubeflow(target: Target, kube: Kube) -> None:
    """The trainer and JobSet, in the network of the cluster."""
    assert isinstance(target, EmbeddedTarget)
    layout = target.cluster.layout

    async def install() -> None:
        async with ApiClient.from_kubeconfig(kube.kubeconfig) as client:
            await install_kubeflow(layout, client)

    asyncio.run(install())


@pytest.fixture(scope="session")
def suite() -> OwnSuite:
    """What the gate asks: each form in two wordings that no line of the data has."""
    items = split_questions()[1]
    header = SuiteHeader(
        name="forms-v1",
        version="1.0.0",
        family="forms",
        tier="edge",
        description="What the forms of a bank are for.",
        reference_engine="the teacher that knows them",
        sha256="",
        items=len(items),
        sampling=SuiteSampling(max_new_tokens=16),
        scorer_version=SCORER_VERSION,
    )
    recorded = [
        RecordedAnswer(item.id, answer, FinishReason.STOP, score)
        for item in items
        for answer, score in ((item.answers[0], OutcomeLabel.CORRECT), ("nothing", OutcomeLabel.INCORRECT))
    ]
    return sealed(header, items, recorded, generate_key())


@pytest.fixture(scope="session")
def tenant(kube: Kube, kubeflow: None, suite: OwnSuite) -> Iterator[Tenant]:
    """A namespace that is gone at the end, with the engines of these tests."""
    with open_tenant(kube, NAMESPACE, suite) as opened:
        yield opened
