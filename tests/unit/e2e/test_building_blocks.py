"""The end-to-end building blocks that need no cluster: waiting with evidence, telling, and where images come from."""

import io
import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from e2e import parts
from e2e.background import run_in_background
from e2e.demo.scenes import QUIET, quiet_again
from e2e.demo.telling import Stage, Teller
from e2e.kube import Kube
from e2e.story import (
    FULL,
    FULL_Q4,
    FULL_Q4_OBSERVE,
    TICK_SECONDS,
    decided_at,
    refused,
    refused_for_good,
    settled,
    ticking,
)
from e2e.story import name_in as named
from e2e.target import Target
from e2e.waiting import StoryError, wait_for
from r1plus_cli.deployment.view import build_view
from r1plus_contract.names import ANNOTATION_VERDICT
from support.cli.deployments import READY, VERIFIED, condition, cr
from support.waiting import WaitError

REFUSAL = (
    READY,
    condition("QualityVerified", "False", "GateFailed", "lost 47 of 206"),
    condition("Progressing", "False", "CandidateRefused"),
)


def test_waiting_in_vain_tells_what_was_seen_instead() -> None:
    with pytest.raises(WaitError, match=r"(?s)still not so: the pod.*It is Pending"):
        wait_for(lambda: None, "the pod", lambda: "It is Pending", seconds=0.0)


def test_waiting_ends_with_what_was_found() -> None:
    found = iter((None, None, "here"))

    assert wait_for(lambda: next(found), "it", period_s=0.001) == "here"


def test_steps_in_the_background_end_in_turn_and_after_one_that_fails_none_begins() -> None:
    begun: list[str] = []

    def fail() -> None:
        raise StoryError("no pod")

    first, second, third = run_in_background(lambda: "here", fail, lambda: begun.append("third"))

    assert first.result(120.0) == "here"
    for future in (second, third):
        with pytest.raises(StoryError, match="no pod"):
            future.result(120.0)
    assert begun == []


def test_a_refused_candidate_is_refused_for_good_once_its_spec_was_seen() -> None:
    seen = build_view(cr(*REFUSAL, candidate="credit-bbbb"))
    stale = build_view(cr(*REFUSAL, candidate="credit-bbbb", generation=2, observed=1))

    assert refused(seen) and refused_for_good(seen)
    assert not refused(stale) and not refused_for_good(stale)


def test_settled_means_ready_verified_and_without_a_candidate() -> None:
    assert settled(build_view(cr(READY, VERIFIED)))
    assert not settled(build_view(cr(READY, VERIFIED, candidate="credit-bbbb")))
    assert not settled(build_view(cr(READY)))


def test_the_regression_is_the_same_deployment_as_the_one_that_serves() -> None:
    assert named(FULL) == named(FULL_Q4) == named(FULL_Q4_OBSERVE)


def test_a_failed_demo_says_where_to_look_and_how_to_go_on() -> None:
    out = io.StringIO()
    teller = Teller(out)

    with teller.stage(Stage.SERVE):
        teller.line("one\ntwo")
    teller.failure(StoryError("Waited 5 s, and still not so"), Path("/tmp/diagnostics"))

    text = out.getvalue()
    assert "Step 4 of 8: " in text
    assert "    one\n    two\n" in text
    assert "Waited 5 s, and still not so" in text
    assert "/tmp/diagnostics" in text
    assert "make down" in text


def test_a_long_wait_says_what_it_waits_for_and_that_it_goes_on() -> None:
    told: list[str] = []
    now = iter((0.0, 5.0, TICK_SECONDS, TICK_SECONDS, TICK_SECONDS + 1.0))
    look = ticking(lambda: None, "a sweep", told.append, lambda: next(now))
    for _ in range(3):
        look()
    assert told == ["Waiting: a sweep", f"Still waiting, {TICK_SECONDS:.0f} s: a sweep"]


class RecordingKube:
    """Answers from `objects`, and remembers what was typed."""

    def __init__(self, objects: dict[str, Any] | None = None) -> None:
        self.typed: list[tuple[str, ...]] = []
        self.objects = objects or {}

    def kubectl(self, *words: str) -> str:
        self.typed.append(words)
        return ""

    def patch(self, plural: str, namespace: str, name: str, body: Any) -> None:
        self.typed.append(("patch", namespace, name, json.dumps(body)))

    def get(self, plural: str, namespace: str, name: str) -> Any:
        return self.objects.get(f"{plural}/{namespace}/{name}")


ENDS = {
    "it goes well": (None, "patch"),
    "it fails": (StoryError("Waited 5 s, and still not so"), "patch"),
    "it is interrupted": (KeyboardInterrupt(), "apply"),
}


@pytest.mark.parametrize(("error", "verb"), ENDS.values(), ids=ENDS)
def test_however_the_demo_ends_its_example_probes_at_the_ordinary_rate(error: BaseException | None, verb: str) -> None:
    kube, out = RecordingKube(), io.StringIO()
    target = cast(Target, SimpleNamespace(kube=kube))
    with pytest.raises(type(error)) if error else nullcontext(), quiet_again(target, named(FULL), Teller(out)):
        if error is not None:
            raise error

    written = {"apply": ("apply", f"--filename={FULL}"), "patch": ("patch", "team-credit", "credit", json.dumps(QUIET))}
    assert kube.typed == [written[verb]]
    assert ("is put back to credit-full.yaml" in out.getvalue()) is (verb == "apply")


def test_when_the_gate_decided_is_read_off_the_revision() -> None:
    moments = ("2026-11-25T03:45:38Z", "2026-11-25T03:40:00Z")
    notes = {ANNOTATION_VERDICT: json.dumps({"reports": [{"decidedAt": moment} for moment in moments]})}
    stored = {"controllerrevisions/team-credit/credit-bbbb": {"metadata": {"annotations": notes}}}
    kube = cast(Kube, RecordingKube(stored))
    assert decided_at(kube, named(FULL), "credit-bbbb") == moments[0]
    assert decided_at(kube, named(FULL), "credit-cccc") == decided_at(kube, named(FULL), "") == ""


GIVEN = {
    "nothing": (None, "set R1PLUS_IMAGES"),
    "a file that lacks an image": ({"operator": "a", "monitor": "b", "registry": "c"}, "lacks gateway, triton-cpu"),
}


@pytest.mark.parametrize(("refs", "expected"), GIVEN.values(), ids=GIVEN.keys())
def test_a_cluster_of_ones_own_needs_its_images_named(
    refs: dict[str, str] | None, expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "images.json"
    if refs is not None:
        file.write_text(json.dumps(refs))

    with pytest.raises(StoryError, match=expected):
        parts.given(None if refs is None else file)


def test_engines_are_listed_by_their_names() -> None:
    assert parts.Parts({"operator": "a", "engine/smollm2-full-f16": "b"}).engines == {"smollm2-full-f16": "b"}
