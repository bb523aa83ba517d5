"""A rollout superseded five times in a row under traffic: nobody's request fails, and nothing is left behind.

`make e2e STORY=rollouts`. Uses the smallest of the demo's deployments and leaves it as it was.
"""

import pytest

from e2e import gateways, story
from e2e.asking import Asker
from e2e.kube import Json, Kube
from e2e.story import EDGE, name_in
from e2e.target import Target
from e2e.waiting import wait_for
from r1plus_contract.names import LABEL_REVISION, PORT_GRPC

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(7200)]

TIMES = 5


def test_five_rollouts_superseded_in_a_row_fail_no_request_and_leave_nothing(target: Target) -> None:
    kube, name = target.kube, name_in(EDGE)
    gateways.apply_tenants(kube, print)
    story.apply(kube, EDGE)
    story.until_ready(kube, [name], print)
    stable = story.serving_revision(kube, name)
    seen: set[str] = set()
    applied = kube.get("r1plusdeployments", name.namespace, name.name)
    assert applied is not None
    original = {"spec": {"context": applied["spec"]["context"]}}

    with target.reach(name.namespace, name.name, PORT_GRPC) as address, Asker(address) as asker:
        for number in range(TIMES):
            kube.patch("r1plusdeployments", name.namespace, name.name, _context(4000 + number))
            seen.add(wait_for(lambda: _running_candidate(kube, name, {stable, *seen}), "a candidate's pod"))
            assert story.serving_revision(kube, name) == stable
        kube.patch("r1plusdeployments", name.namespace, name.name, original)
        story.until_ready(kube, [name], print)
        asker.more_answers()

    assert asker.failures == []
    assert asker.answered > TIMES
    assert len(seen) == TIMES
    assert story.serving_revision(kube, name) == stable
    wait_for(lambda: _revisions_with_pods(kube, name) == {stable}, "the candidates' pods are gone")


def _context(tokens: int) -> Json:
    return {"spec": {"context": {"maxTokens": tokens}}}


def _running_candidate(kube: Kube, name: story.Name, others: set[str]) -> str | None:
    """The revision of a pod that is up to its containers, and of none of `others`."""
    for pod in kube.pods_of(name.namespace, name.name):
        revision = str(pod["metadata"]["labels"][LABEL_REVISION])
        if revision not in others and pod.get("status", {}).get("phase") == "Running":
            return revision
    return None


def _revisions_with_pods(kube: Kube, name: story.Name) -> set[str]:
    return {str(pod["metadata"]["labels"][LABEL_REVISION]) for pod in kube.pods_of(name.namespace, name.name)}
