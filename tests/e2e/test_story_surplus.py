"""After the story: no right of the operator's, the registry's or the hook's is left that nothing used.

It runs after `test_story`, by its name, and says something only then: alone it would find everything unused.
"""

from collections.abc import Iterable

import pytest

from bench.reconcile.audit import Request
from e2e.rbac_surplus import HOLDERS, requests_in, surplus
from e2e.target import EmbeddedTarget, Target

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]

STORY = "test_story.py"


@pytest.fixture(scope="session")
def requests(target: Target, request: pytest.FixtureRequest) -> Iterable[Request]:
    """Everything that was asked of the API server since it started."""
    if not isinstance(target, EmbeddedTarget):
        pytest.skip("the audit log of a cluster of one's own is not ours to read")
    if STORY not in {item.path.name for item in request.session.items}:
        pytest.skip("what is needed is told by the whole story: make e2e")
    return tuple(requests_in(target.cluster.audit_log))


@pytest.mark.parametrize("who", HOLDERS)
def test_every_right_was_used(requests: Iterable[Request], who: str) -> None:
    assert surplus(HOLDERS[who], requests) == []
