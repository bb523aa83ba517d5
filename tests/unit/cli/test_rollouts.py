"""`r1plus refresh` and `r1plus rollouts`: what is asked for, what is refused, and how a wave is told."""

from datetime import UTC, datetime
from typing import Any

import pytest

from r1plus_cli.deployment.view import build_view
from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.rollout.actions import refresh_all, request_action
from r1plus_cli.rollout.rollouts import show_rollouts
from r1plus_contract.requests import Verb, read_requests
from support.cli.command import printed, run
from support.cli.deployments import READY, Json, cr
from support.tables import for_each

NOW = datetime(2026, 11, 24, 17, 30, tzinfo=UTC)


class Cluster:
    """Holds deployments and takes changes to them."""

    def __init__(self, *bodies: Json) -> None:
        self.bodies = {body["metadata"]["name"]: body for body in bodies}
        self.patches: dict[str, Json] = {}

    def get_deployment(self, namespace: str, name: str) -> Json:
        return self.bodies[name]

    def get_username(self) -> str:
        return "alice@example.com"

    def patch_deployment(self, namespace: str, name: str, patch: Json) -> None:
        self.patches[name] = patch


def serving(name: str = "credit", reason: str = "RuntimeOutdated", *, outdated: bool = True, **status: Any) -> Json:
    runtime = {"triton": "registry.local/triton:1", "monitor": "registry.local/monitor@sha256:" + "a" * 64}
    runtime |= {"outdated": outdated, "reason": reason, "message": f"message of {name}"}
    body = cr(READY, **{"revision": f"{name}-aaaa", "runtime": runtime, **status})
    body["metadata"]["name"] = name
    return body


def with_rollout(**rollout: Any) -> Json:
    body = serving()
    body["spec"]["rollout"] = rollout
    return body


@for_each("body, words", {
    "what is outdated": (serving(), "as soon as its turn comes"),
    "what stops for it": (with_rollout(strategy="InPlace"), "credit-aaaa is stopped for that"),
    "what failed before": (serving(reason="RefreshFailed"), "as soon as its turn comes"),
})  # fmt: skip
def test_a_refresh_is_asked_for(body: Json, words: str) -> None:
    cluster = Cluster(body)
    said = request_action(cluster, "team-credit", "credit", Verb.REFRESH, "Triton 26.07", NOW)
    request = read_requests(cluster.patches["credit"]["metadata"])[Verb.REFRESH]
    assert (request.by, request.why, request.revision) == ("alice@example.com", "Triton 26.07", "credit-aaaa")
    assert words in said


@for_each("body, words", {
    "what has nothing newer": (serving(reason="Current", outdated=False), "already runs the operator"),
    "what is pinned": (with_rollout(pinned=True), "r1plus unpin credit -n team-credit --reason"),
    "what is on its way": (serving(reason="RefreshUnderWay"), "already being rolled out"),
    "what was rolled back": (serving(incident={"reason": "RolledBack"}), "r1plus ack credit -n team-credit --reason"),
    "what another version of the operator tells of": (serving(runtime=None), "already runs the operator"),
})  # fmt: skip
def test_a_refresh_is_refused_of(body: Json, words: str) -> None:
    cluster = Cluster(body)
    with pytest.raises(CliError, match=words):
        request_action(cluster, "team-credit", "credit", Verb.REFRESH, "a reason", NOW)
    assert cluster.patches == {}


def test_all_asks_for_what_is_outdated_and_says_what_it_cannot_ask_for() -> None:
    pinned = serving("pinned")
    pinned["spec"]["rollout"] = {"pinned": True}
    bodies = [serving("one"), pinned, serving("two"), serving("new", "Current", outdated=False)]
    cluster = Cluster(*bodies)
    said = list(refresh_all(cluster, bodies, "Triton 26.07", NOW))
    assert sorted(cluster.patches) == ["one", "two"]
    assert len(said) == 3
    assert said[1].startswith("Not requested: team-credit/pinned: traffic is pinned")


@for_each("bodies, words", {
    "all serve the operator's images": ([serving("a", "Current", outdated=False)] * 2, "2 deployments run"),
    "one does": ([serving("a", "Current", outdated=False)], "1 deployment runs"),
    "one does, and one serves nothing": ([serving("a", "Current", outdated=False), cr()], "1 more serves nothing yet"),
    "there is none": ([], "0 deployments run"),
})  # fmt: skip
def test_that_nothing_is_outdated_is_said_where(bodies: list[Json], words: str) -> None:
    (said,) = refresh_all(Cluster(*bodies), bodies, "Triton 26.07", NOW)
    assert said.startswith("Nothing is outdated: ")
    assert words in said


@for_each("words", {
    "nothing": (),
    "both a name and all": ("credit", "--all"),
    "a name of every tenant": ("credit", "-A"),
})  # fmt: skip
def test_a_refresh_needs_a_name_or_all_and_not(words: tuple[str, ...]) -> None:
    result = run("refresh", *words, "--reason", "Triton 26.07")
    assert isinstance(result.exception, UsageError)


def test_a_failed_candidate_of_a_wave_can_be_acknowledged() -> None:
    cluster = Cluster(serving(reason="RefreshFailed"))
    assert request_action(cluster, "team-credit", "credit", Verb.ACK, "a slow disk", NOW)


def test_the_wave_is_shown() -> None:
    bodies = [
        serving("a", "RefreshUnderWay"),
        serving("b", "RefreshWaits"),
        serving("c", "RefreshFailed"),
        serving("d", "Current", outdated=False),
        cr(),
    ]
    text = printed(show_rollouts, list(map(build_view, bodies)))
    assert "triton:1  monitor@sha256:aaaaaaaaaaaa  RefreshUnderWay" in text
    assert "message of b" in text
    assert "message of c" in text
    assert "message of d" not in text
    assert text.rstrip().endswith("1 under way, 1 waiting, 1 failed, 1 current")
