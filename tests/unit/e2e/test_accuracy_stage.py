"""What the stories of accuracy build on, as far as it needs no cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from e2e.accuracy.altered_suites import agreeing, mistaken
from e2e.accuracy.images import FAULTY, LAYERS, MARK
from e2e.accuracy.witness import Client, Witness
from e2e.story import Name
from e2e.suites import own_suite, shipped
from e2e.waiting import wait_for
from r1plus_contract.names import LABEL_REVISION
from r1plus_contract.suites.suite import SuiteSampling
from r1plus_contract.suites.suite_check import check
from r1plus_contract.suites.suite_reference import read_reference
from r1plus_monitoring.scoring.replay import replay
from r1plus_operator.observe.suite_signature import find_signer, generate_key

KEY = generate_key()


@pytest.mark.parametrize("tier", ["full", "edge"])
def test_a_tenants_own_suite_is_one_that_the_operator_takes_and_the_monitor_replays(tier: str) -> None:
    own = own_suite(tier, KEY)
    assert check(own.files).problems == ()
    assert find_signer(own.files) == KEY.public
    assert set(own.suite.strata().values()) == {20}
    assert own.suite.header.sha256 != shipped(f"smollm2-{tier}-v1").header.sha256
    recorded = read_reference(own.files.reference, own.suite)
    assert {one.score for one in recorded} == {"correct", "incorrect"}
    assert replay(own.suite, recorded) == ()


def test_a_reference_that_agrees_with_a_broken_scorer_is_well_formed_and_signed_under_the_same_suite_hash() -> None:
    own = own_suite("edge", KEY)
    altered = agreeing(own)
    assert check(altered.files).problems == ()
    assert find_signer(altered.files) == KEY.public
    assert altered.suite.header.sha256 == own.suite.header.sha256
    assert altered.files.digest() != own.files.digest()
    assert MARK in altered.files.reference
    assert replay(own.suite, read_reference(altered.files.reference, own.suite)), "a sound scorer sees it"


def test_a_suite_with_wrong_answers_is_another_suite_of_the_same_name_that_replays() -> None:
    own = own_suite("edge", KEY)
    altered = mistaken(own)
    assert check(altered.files).problems == ()
    assert find_signer(altered.files) == KEY.public
    assert altered.suite.header.name == own.suite.header.name
    assert altered.suite.header.sha256 != own.suite.header.sha256
    assert replay(altered.suite, read_reference(altered.files.reference, altered.suite)) == ()


def test_the_faulty_images_replace_modules_that_the_product_has() -> None:
    room = LAYERS.parents[3]
    for faulty in FAULTY:
        (found,) = room.glob(f"*/{faulty.module}.py")
        assert not found.with_name(f"{faulty.sound}.py").exists()
        assert faulty.sound in (LAYERS / faulty.layer).read_text()


def test_a_client_tells_what_was_answered_wrongly_before_a_moment() -> None:
    client = Client("nowhere:1", (), SuiteSampling(), wrong=[(1.0, "a"), (2.0, "b")])
    assert client.wrong_before(2.0) == ["a"]


class Target:
    """A cluster whose model nobody reaches, with a Service and an alert."""

    def __init__(self) -> None:
        self.kube = self
        self.left: list[str] = []

    @contextmanager
    def reach(self, namespace: str, service: str, port: int) -> Iterator[str]:
        yield "127.0.0.1:1"
        self.left.append("service")

    @contextmanager
    def alertmanager(self) -> Iterator[str]:
        yield "http://127.0.0.1:1"
        self.left.append("alertmanager")

    def get(self, plural: str, namespace: str, name: str) -> dict[str, Any]:
        return {"spec": {"selector": {LABEL_REVISION: "credit-a"}}}


def test_a_witness_sees_where_traffic_goes_and_every_question_that_fails_and_leaves_nothing_open() -> None:
    target = Target()
    own = own_suite("edge", KEY)
    with Witness(cast(Any, target), Name("t", "credit"), own.suite, pause_s=0.01) as seen:
        wait_for(lambda: seen.client.failures or None, "a question that fails", period_s=0.01)
        assert seen.revisions == ["credit-a"]
        assert seen.moved_to("credit-a") is not None
        assert seen.moved_to("credit-b") is None
    assert sorted(target.left) == ["alertmanager", "service"]
    assert "failed, the first: " in seen.client.told
