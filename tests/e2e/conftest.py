"""One cluster for all end-to-end tests: the one that runs, or a new one, which is then taken away again.

With the KUBECONFIG of a cluster of your own that one is used, as by the demo. Set R1PLUS_KEEP=1 to look around after a failure.
"""

import os
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from devcluster import kubeconfig
from devcluster.cluster import Cluster
from devcluster.steps import Steps
from e2e import chart, parts, passing_tenant
from e2e.background import run_in_background
from e2e.kube import Kube
from e2e.lite_story import LiteStory
from e2e.own_images import OwnImages
from e2e.parts import Parts
from e2e.regression import Regression
from e2e.target import EmbeddedTarget, GivenTarget, Target
from e2e.tiers import Applied, apply_tiers

KEEP = "R1PLUS_KEEP"
_TARGET = pytest.StashKey[Target]()


@pytest.fixture(scope="session")
def own_images() -> OwnImages:
    """Images that a folder of tests alone has; most have none."""
    return OwnImages()


@pytest.fixture(scope="session")
def built(own_images: OwnImages) -> Parts:
    """Programs, engines and images; from the cache where they are there."""
    found = parts.given(parts.given_path()) if kubeconfig.of_ones_own() else parts.build(Steps())
    return replace(found, archives=(*found.archives, *own_images.archives))


@pytest.fixture(scope="session")
def chart_values(built: Parts, own_images: OwnImages) -> dict[str, Any]:
    """Values of the chart; a folder of tests may have others.

    Archives may be fetched from a network that nobody has: a tenant's volume gets its Job, which finds nothing. Monitors are
    asked and scraped often, so that nobody waits for what is known already.
    """
    return {
        "images": {**chart.values_of(built)["images"], **own_images.chart_images},
        "delivery": {"cidrs": ["192.0.2.0/24"], "requireSignature": False},
        "verdictIntervalSeconds": 2,
        "monitoring": {"interval": "5s"},
    }


@pytest.fixture(scope="session")
def target(built: Parts, chart_values: dict[str, Any], pytestconfig: pytest.Config) -> Iterator[Target]:
    """A cluster with the operator installed."""
    if given := kubeconfig.of_ones_own():
        yield _installed(GivenTarget(Kube(given)), built, chart_values, pytestconfig, Steps(1))
        return
    steps = Steps(2)
    cluster = Cluster.up(steps, list(built.own), wait=False)
    try:
        with steps.step("images of r1plus into the cluster"):
            cluster.import_images(built.archives)
        found = _installed(EmbeddedTarget(cluster, Kube(cluster.kubeconfig)), built, chart_values, pytestconfig, steps)
        cluster.wait_for_system_pods(steps)
        yield found
    finally:
        if cluster.is_new and not os.environ.get(KEEP):
            cluster.down()


@pytest.fixture(scope="session")
def kube(target: Target) -> Kube:
    """The cluster's API."""
    return target.kube


@pytest.fixture(scope="session")
def applied(target: Target) -> Applied:
    """The three tiers, on their way to be Ready."""
    return apply_tiers(target.kube)


@pytest.fixture(scope="session")
def regression(applied: Applied, target: Target) -> Regression:
    """From here on `full` serves, and is moved to another engine: refused, then forced through."""
    return Regression(applied.names["full"], applied.accuracy["full"], target)


@pytest.fixture(scope="session")
def lite_story(applied: Applied, target: Target) -> LiteStory:
    """From here on `lite` serves, its prober hangs, and then one of two pods of it goes bad."""
    return LiteStory(applied.names["lite"], target)


@pytest.fixture(scope="session")
def passing(kube: Kube) -> Iterator[list[Future[None]]]:
    """From here on a tenant comes and goes; a future for each stage."""
    passing_tenant.create_tenant(kube)
    stages = (
        passing_tenant.replace_revisions,
        passing_tenant.read_history,
        passing_tenant.take_back_grants,
        passing_tenant.switch_gateway,
        passing_tenant.delete_tenant,
    )
    yield run_in_background(*(partial(stage, kube) for stage in stages))
    passing_tenant.clear(kube)


def _installed(target: Target, built: Parts, values: Mapping[str, Any], config: pytest.Config, steps: Steps) -> Target:
    config.stash[_TARGET] = target
    with steps.step("helm upgrade --install r1plus"):
        chart.install(target.kube, built, values)
    return target


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say where logs, events and pod states of the first failure lie."""
    report = yield
    target = item.config.stash.get(_TARGET, None)
    if report.failed and target is not None:
        report.sections.append(("Diagnostics", str(target.diagnostics())))
    return report
