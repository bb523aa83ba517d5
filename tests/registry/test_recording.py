"""Facts are recorded once, whole or not at all, and read back as they were sent."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from r1plus_contract.history import DeploymentFact, Facts, ItemResult, RolloutEvent, SuiteItem
from r1plus_contract.jsonable import dumps, loads
from r1plus_contract.verdict import Verdict
from r1plus_registry import checks, migration
from r1plus_registry.database import RegistryDatabase
from r1plus_registry.errors import DocumentError
from r1plus_registry.unit_of_work import RegistryUnitOfWork
from support.registry import story

EACH_ONCE = dict.fromkeys(("deployments", "engines", "suites", "revisions", "evaluations", "rollouts", "alarms"), 1)


def record(work: RegistryUnitOfWork, facts: Facts) -> dict[str, int]:
    with work.open_repository() as repository:
        return repository.record(facts)


def report(**changes: Any) -> Facts:
    return Facts(evaluations=(replace(story.EVALUATION, report=replace(story.REPORT, **changes)),))


def test_what_is_sent_twice_is_recorded_once(work: RegistryUnitOfWork) -> None:
    assert record(work, story.FACTS) == EACH_ONCE
    assert record(work, story.FACTS) == {}
    with work.open_reader() as reader:
        (history,) = reader.read_histories("team-credit", "credit", include_ended=False)
    assert [len(part) for part in (history.revisions, history.evaluations, history.rollouts, history.alarms)] == [1] * 4


def test_what_is_read_is_what_was_sent(work: RegistryUnitOfWork) -> None:
    record(work, loads(Facts, dumps(story.FACTS)))
    with work.open_reader() as reader:
        (history,) = reader.read_histories("team-credit", "credit", include_ended=False)
        (evaluation,) = reader.read_evaluations("team-credit", "credit", include_ended=False, items=True)
        (engine,) = reader.read_engines()
    assert history.deployment == story.DEPLOYMENT
    assert history.ended is False
    assert history.revisions == story.FACTS.revisions
    assert history.evaluations == story.FACTS.evaluations
    assert history.rollouts == story.FACTS.rollouts
    assert history.alarms == story.FACTS.alarms
    assert evaluation.report == story.REPORT
    assert (evaluation.engine, evaluation.deployment) == (story.ENGINE.name, "credit")
    assert (engine.engine, engine.evaluations, engine.passed) == (story.ENGINE, 1, 0)


KEYS: dict[str, tuple[str, Facts]] = {
    "an engine of the same name with another spec": ("engines", Facts(engines=(replace(story.ENGINE, spec_digest="f" * 64),))),
    "a suite of a tenant with the same digest": ("suites", Facts(suites=(replace(story.SUITE, namespace="team-credit"),))),
    "a suite of the same name with another digest": ("suites", Facts(suites=(replace(story.SUITE, sha256="6" * 64),))),
    "another revision": ("revisions", Facts(revisions=(replace(story.REVISION, name="credit-b"),))),
    "another revision's gate": ("evaluations", Facts(evaluations=(replace(story.EVALUATION, revision="credit-b"),))),
    "a gate decided later": ("evaluations", report(decided_at="2026-11-25T12:00:01Z")),
    "a gate on another suite": ("evaluations", report(suite_hash="7" * 64)),
    "a gate by another scorer": ("evaluations", report(scorer_version="2")),
    "a gate under another threshold": ("evaluations", report(threshold=0.97)),
    "a gate at another batch": ("evaluations", report(batch=1)),
    "a gate that a control asked for": ("evaluations", report(control="credit-a@1.000")),
    "a gate after an ack": ("evaluations", report(acknowledged="2026-11-25T11:00:00Z")),
    "a gate with another verdict": ("evaluations", report(verdict=Verdict.PASS)),
    "a gate with other losses": ("evaluations", report(lost=1)),
    "another event": ("rollouts", Facts(rollouts=(replace(story.ROLLOUT, event=RolloutEvent.PROMOTED),))),
    "the same event later": ("rollouts", Facts(rollouts=(replace(story.ROLLOUT, at=story.ROLLOUT.at + 0.001),))),
    "a later alarm": ("alarms", Facts(alarms=(replace(story.ALARM, since="2026-11-25T12:06:00Z"),))),
    "another reason": ("alarms", Facts(alarms=(replace(story.ALARM, reason="OneBadPod"),))),
    "another source": ("alarms", Facts(alarms=(replace(story.ALARM, source="pod/credit-0"),))),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "facts"), KEYS.values(), ids=KEYS)
def test_each_part_of_a_natural_key_tells_facts_apart(work: RegistryUnitOfWork, kind: str, facts: Facts) -> None:
    record(work, story.FACTS)
    assert record(work, facts) == {kind: 1}
    assert record(work, facts) == {}


def test_two_deployments_have_each_their_own(work: RegistryUnitOfWork) -> None:
    record(work, story.FACTS)
    assert record(work, story.of("another-uid")) == {k: 1 for k in EACH_ONCE if k not in ("engines", "suites")}


def test_a_delivery_that_cannot_be_recorded_whole_is_not_recorded_at_all(work: RegistryUnitOfWork) -> None:
    stray = replace(story.FACTS, alarms=(replace(story.ALARM, deployment="nobody"),))
    with pytest.raises(DocumentError, match="'nobody' is neither recorded nor in"):
        record(work, stray)
    with work.open_reader() as reader:
        assert reader.read_histories("team-credit", "credit", include_ended=True) == ()
        assert reader.read_engines() == ()


def test_at_the_same_time_from_four_sides_each_fact_is_recorded_once(work: RegistryUnitOfWork) -> None:
    with ThreadPoolExecutor(4) as threads:
        receipts = list(threads.map(lambda _: record(work, story.FACTS), range(12)))
    assert {kind: sum(one.get(kind, 0) for one in receipts) for kind in EACH_ONCE} == EACH_ONCE


def test_what_lives_no_more_has_ended_and_is_not_shown_to_everybody(work: RegistryUnitOfWork) -> None:
    record(work, story.FACTS)
    record(work, story.of("namesake"))
    assert record(work, Facts(live=("namesake",))) == {"ended": 1}
    assert record(work, Facts(live=("namesake",))) == {}
    with work.open_reader() as reader:
        assert [one.deployment.uid for one in reader.read_histories("team-credit", "credit", include_ended=False)] == [
            "namesake"
        ]
        both = reader.read_histories("team-credit", "credit", include_ended=True)
        assert [(one.deployment.uid, one.ended) for one in both] == [("namesake", False), (story.UID, True)]
        assert len(reader.read_evaluations("team-credit", None, include_ended=False, items=False)) == 1
        assert len(reader.read_evaluations(None, None, include_ended=True, items=False)) == 2


def test_one_that_was_thought_to_have_ended_and_is_there_has_not(work: RegistryUnitOfWork) -> None:
    record(work, story.FACTS)
    record(work, Facts(live=()))
    record(work, Facts(live=(story.UID,)))
    with work.open_reader() as reader:
        assert [one.ended for one in reader.read_histories("team-credit", "credit", include_ended=False)] == [False]


def test_every_item_is_told_where_the_report_names_all_that_were_lost(work: RegistryUnitOfWork) -> None:
    record(work, story.FACTS)
    assert items(work) == (
        ItemResult("c1", "capitals", True),
        ItemResult("c2", "capitals", False),
        ItemResult("s1", "sums", False),
    )


def test_an_item_is_not_called_right_where_the_report_names_but_some_that_were_lost(work: RegistryUnitOfWork) -> None:
    record(work, replace(story.FACTS, evaluations=report(lost=3).evaluations))
    assert [one.right for one in items(work)] == [None, False, False]


def test_of_an_unknown_suite_the_lost_items_are_told(work: RegistryUnitOfWork) -> None:
    record(work, replace(story.FACTS, suites=()))
    assert items(work) == (ItemResult("c2", "", False), ItemResult("s1", "", False))


def test_a_tenants_own_suite_is_taken_before_a_shipped_one_and_nobody_elses(work: RegistryUnitOfWork) -> None:
    own = replace(story.SUITE, namespace="team-credit", items=(SuiteItem("c1", "own"),))
    strange = replace(story.SUITE, namespace="team-other", items=(SuiteItem("c1", "strange"),))
    record(work, replace(story.FACTS, suites=(story.SUITE, strange, own)))
    assert items(work)[0] == ItemResult("c1", "own", True)


def items(work: RegistryUnitOfWork) -> tuple[ItemResult, ...]:
    with work.open_reader() as reader:
        (found,) = reader.read_evaluations("team-credit", "credit", include_ended=False, items=True)
    return found.items


def bad(**changes: Any) -> Facts:
    return replace(story.FACTS, **changes)


BAD: dict[str, tuple[Facts, str]] = {
    "a revision's name that no index carries": (bad(revisions=(replace(story.REVISION, name="x" * 254),)), "facts.revisions[0].name: 254 bytes, at most 253"),
    "an item's id that no index carries": (report(lost_items=("c1", "x" * 254)), "facts.evaluations[0].report.lost_items[1]: 254 bytes"),
    "a text that is a book": (bad(alarms=(replace(story.ALARM, text="x" * 4097),)), "facts.alarms[0].text: 4097 bytes"),
    "a number beyond 64 bits": (bad(revisions=(replace(story.REVISION, number=2**63),)), "facts.revisions[0].number"),
    "a number below zero": (report(lost=-1), "facts.evaluations[0].report.lost"),
    "an accuracy that is no number": (report(threshold=float("nan")), "facts.evaluations[0].report.threshold"),
    "half a character": (bad(engines=(replace(story.ENGINE, spec={"a": ["\ud800"]}),)), "facts.engines[0].spec.a[0]: has half a character"),
    "more facts than a delivery holds": (Facts(rollouts=(story.ROLLOUT,) * 5001), "5001 facts, at most 5000"),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "said"), BAD.values(), ids=BAD)
def test_what_no_database_holds_is_refused_with_its_place(facts: Facts, said: str) -> None:
    with pytest.raises(DocumentError) as refused:
        checks.check_facts(facts)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "facts",
    [
        bad(revisions=(replace(story.REVISION, name="x" * 253, number=2**63 - 1),)),
        bad(alarms=(replace(story.ALARM, text="x" * 4096),)),
        bad(engines=(replace(story.ENGINE, image="x" * 512),)),
        Facts(rollouts=(story.ROLLOUT,) * 5000),
    ],
    ids=["a name and a number", "a text", "an image", "facts in a delivery"],
)
def test_what_is_just_within_its_limit_is_taken_as_it_is(facts: Facts) -> None:
    assert checks.check_facts(facts) == facts


def test_the_largest_that_is_accepted_is_recorded(work: RegistryUnitOfWork) -> None:
    widest = "\N{GRINNING FACE}" * 63
    largest = replace(story.REPORT, control=widest, acknowledged=widest, scorer_version=widest, suite_hash=widest, decided_at=widest, lost=2**63 - 1)  # fmt: skip
    facts = replace(story.FACTS, revisions=(replace(story.REVISION, name=widest),), evaluations=(replace(story.EVALUATION, revision=widest, report=largest),))  # fmt: skip
    assert record(work, checks.check_facts(facts)) == EACH_ONCE


def test_a_nul_that_a_pod_has_said_spoils_nothing(work: RegistryUnitOfWork) -> None:
    facts = checks.check_facts(report(message="a\0b", lost_items=("c\0",)))
    record(work, replace(story.FACTS, evaluations=facts.evaluations))
    with work.open_reader() as reader:
        (found,) = reader.read_evaluations(None, None, include_ended=False, items=False)
    assert (found.report.message, found.report.lost_items) == (
        "a\N{REPLACEMENT CHARACTER}b",
        ("c\N{REPLACEMENT CHARACTER}",),
    )


@pytest.fixture
def reopened(database: RegistryDatabase) -> Iterator[RegistryDatabase]:
    other = RegistryDatabase(database.url.render_as_string(hide_password=False))
    yield other
    other.close()


def test_another_process_finds_what_was_recorded(work: RegistryUnitOfWork, reopened: RegistryDatabase) -> None:
    record(work, story.FACTS)
    assert migration.migrate(reopened) == (migration.get_head(), migration.get_head())
    assert record(RegistryUnitOfWork(reopened), story.FACTS) == {}


def test_in_which_namespace_a_deployment_is_is_filled_in_once(work: RegistryUnitOfWork) -> None:
    for uid in ("", "first", "second"):
        record(work, Facts(deployments=(replace(story.DEPLOYMENT, namespace_uid=uid),)))
    with work.open_reader() as reader:
        (found,) = reader.read_histories("team-credit", "credit", include_ended=True)
    assert found.deployment.namespace_uid == "first"


def test_a_deployment_is_known_by_its_uid_alone(work: RegistryUnitOfWork) -> None:
    record(work, story.FACTS)
    assert record(work, Facts(deployments=(DeploymentFact(story.UID, "elsewhere", "other"),))) == {}
    with work.open_reader() as reader:
        assert len(reader.read_histories("team-credit", "credit", include_ended=True)) == 1
        assert reader.read_histories("elsewhere", "other", include_ended=True) == ()
