"""One cluster, two tenants, and the matrix's line at the end.

`make e2e STORY=isolation`. The embedded cluster alone: its policies are enforced by real packet filters, which the tests also
switch off, and its people have certificates that the tests issue.
"""

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from devcluster import kubeconfig
from devcluster.steps import Steps
from e2e.isolation.matrix import NAMES, Matrix, Trial
from e2e.isolation.stage import Builder, World
from e2e.parts import Parts, build_embedding_engine
from e2e.target import EmbeddedTarget, Target

_MATRIX = pytest.StashKey[Matrix]()
_PASSED = pytest.StashKey[bool]()
VECTOR = "vector"


@pytest.fixture(scope="session")
def chart_values() -> dict[str, Any]:
    """As a platform has it."""
    return {}


@pytest.fixture(scope="session")
def built(built: Parts) -> Parts:
    """With the embedding engine on the node, for the gateways' embedders."""
    if kubeconfig.of_ones_own():
        pytest.skip("the engine's image is built for the embedded cluster; unset KUBECONFIG")
    steps = Steps()
    steps.expect(2)
    return built.add_images(build_embedding_engine(steps))


@pytest.fixture(scope="session")
def embedded(target: Target) -> EmbeddedTarget:
    """The embedded cluster."""
    if kubeconfig.of_ones_own() or not isinstance(target, EmbeddedTarget):
        pytest.skip("the embedded cluster's policies are on trial; unset KUBECONFIG")
    return target


@pytest.fixture(scope="session")
def world(embedded: EmbeddedTarget, built: Parts) -> Iterator[World]:
    """Both tenants serve."""
    builder = Builder(embedded, built.refs["monitor"])
    builder.clear()
    try:
        yield builder.build()
    finally:
        builder.clear()


@pytest.fixture
def trial(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Iterator[Trial]:
    """What this test has to say about its vector."""
    marker = request.node.get_closest_marker(VECTOR)
    trial = Trial(pytestconfig.stash[_MATRIX].tallies[marker.args[0]])
    yield trial
    trial.end(passed=request.node.stash.get(_PASSED, False))


def pytest_configure(config: pytest.Config) -> None:
    """The matrix of this run."""
    config.stash[_MATRIX] = Matrix()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whether the test's own part passed, for the fixture that is torn down after it."""
    report = yield
    if call.when == "call":
        item.stash[_PASSED] = report.passed
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A matrix with a hole is a failure, though no test failed: of a run of the whole folder."""
    numbers = {marker.args[0] for item in session.items for marker in item.iter_markers(VECTOR)}
    is_whole = numbers == set(NAMES)
    if is_whole and not session.config.stash[_MATRIX].complete and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    """The line, the last of all."""
    matrix = config.stash.get(_MATRIX, None)
    if matrix is not None and any(tally.tried for tally in matrix.tallies.values()):
        print(matrix.line(), flush=True)
