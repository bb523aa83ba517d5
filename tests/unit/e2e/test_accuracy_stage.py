"""What the stories of accuracy build on, as far as it needs no cluster."""

import pytest

from e2e.accuracy.images import FAULTY, LAYERS, MARK
from e2e.accuracy.stage import own_suite, shipped
from e2e.accuracy.test_story_6 import agreeing, mistaken
from e2e.accuracy.witness import Client
from r1plus_contract.suite import Sampling
from r1plus_contract.suite_check import check
from r1plus_contract.suite_reference import read_reference
from r1plus_monitoring.replay import replay
from r1plus_operator.suite_signature import new_key, signer

KEY = new_key()


@pytest.mark.parametrize("tier", ["full", "edge"])
def test_a_tenants_own_suite_is_one_that_the_operator_takes_and_the_monitor_replays(tier: str) -> None:
    own = own_suite(tier, KEY)
    assert check(own.files).problems == ()
    assert signer(own.files) == KEY.public
    assert set(own.suite.strata().values()) == {20}
    assert own.suite.header.sha256 != shipped(f"smollm2-{tier}-v1").header.sha256
    recorded = read_reference(own.files.reference, own.suite)
    assert {one.score for one in recorded} == {"correct", "incorrect"}
    assert replay(own.suite, recorded) == ()


def test_a_reference_that_agrees_with_a_broken_scorer_is_well_formed_and_signed_under_the_same_suite_hash() -> None:
    own = own_suite("edge", KEY)
    altered = agreeing(own)
    assert check(altered.files).problems == ()
    assert signer(altered.files) == KEY.public
    assert altered.suite.header.sha256 == own.suite.header.sha256
    assert altered.files.digest() != own.files.digest()
    assert MARK in altered.files.reference
    assert replay(own.suite, read_reference(altered.files.reference, own.suite)), "a sound scorer sees it"


def test_a_suite_with_wrong_answers_is_another_suite_of_the_same_name_that_replays() -> None:
    own = own_suite("edge", KEY)
    altered = mistaken(own)
    assert check(altered.files).problems == ()
    assert signer(altered.files) == KEY.public
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
    client = Client("nowhere:1", (), Sampling(), wrong=[(1.0, "a"), (2.0, "b")])
    assert client.wrong_before(2.0) == ["a"]
