"""One cluster and one install for all stories, one tenant for each, and a line for each at the end.

`make e2e STORY=accuracy`. What is raised is raised by the CR (`accuracy.probesPerMinute`); of the chart only how long a
revision must have served to count as good is another value than a platform's.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from devcluster.steps import Steps
from e2e import chart
from e2e.accuracy import images
from e2e.accuracy.fall import BAKE_SECONDS
from e2e.accuracy.narration import Story
from e2e.kube import Kube
from e2e.parts import Parts
from e2e.suites import OwnSuite, own_suite
from e2e.target import EmbeddedTarget, Target
from e2e.tenants import Tenant
from r1plus_operator.observe.suite_signature import KeyPair, generate_key

_LINES = pytest.StashKey[list[str]]()
_FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def chart_values() -> dict[str, Any]:
    """Twenty seconds of traffic make a revision one to go back to: nobody waits ten minutes for a story."""
    return {"rollback": {"bakeSeconds": BAKE_SECONDS}}


@pytest.fixture(scope="session")
def faulty(target: Target, built: Parts, chart_values: dict[str, Any]) -> Iterator[None]:
    """From here on new revisions run on images whose fault waits for a file; stories that use them come last."""
    if not isinstance(target, EmbeddedTarget):
        pytest.skip("the images with a fault are built for the embedded cluster; unset KUBECONFIG")
    made = images.build(Steps())
    target.cluster.import_images(list(made.values()))
    refs = {"triton": made["triton-cpu"].pinned, "monitor": made["monitor"].pinned}
    chart.install(target.kube, built, chart_values | {"images": chart.values_of(built)["images"] | refs})
    yield
    chart.install(target.kube, built, chart_values)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One change of the chart's images, not one a story."""
    items.sort(key=lambda item: "faulty" in getattr(item, "fixturenames", ()))


@pytest.fixture
def told(request: pytest.FixtureRequest) -> Iterator[Story]:
    """The story's voice: named after the first line of the test's docstring."""
    said = (request.function.__doc__ or request.node.name).strip().splitlines()[0]
    one = Story(said, request.config)
    one.tell(f"Story {said}")
    yield one
    held = "FAILED" if request.node.stash.get(_FAILED, False) else "held"
    line = f"{held:<6} {one.seconds:5.0f} s  {said}  {'; '.join(one.figures)}"
    request.config.stash.setdefault(_LINES, []).append(line)


@pytest.fixture
def tenant(request: pytest.FixtureRequest, kube: Kube, told: Story) -> Iterator[Tenant]:
    """A namespace named after the module: `story-9` of test_story_9.py."""
    number = request.path.stem.removeprefix("test_story_").replace("_", "-")
    found = Tenant(kube, f"story-{number}", told.tell)
    found.make()
    yield found
    found.clear()


@pytest.fixture(scope="session")
def key() -> KeyPair:
    """The tenants' signing key."""
    return generate_key()


@pytest.fixture(scope="session")
def own_edge(key: KeyPair) -> OwnSuite:
    """40 items of the edge suite: a gate in half a minute, beside whatever else runs."""
    return own_suite("edge", key, per_stratum=10)


@pytest.fixture(scope="session")
def own_full(key: KeyPair) -> OwnSuite:
    """80 items of the full suite, additions among them."""
    return own_suite("full", key)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Remember for the line at the end whether the story held."""
    report = yield
    if report.failed:  # type: ignore[attr-defined]
        item.stash[_FAILED] = True
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line per story."""
    lines = terminalreporter.config.stash.get(_LINES, [])
    if lines:
        terminalreporter.section("stories")
    for line in lines:
        terminalreporter.write_line(line)
