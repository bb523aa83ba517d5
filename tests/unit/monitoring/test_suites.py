"""The shipped suites are what the monitor will accept, and what they promise."""

from pathlib import Path

import pytest

from r1plus_contract.inference import FinishReason
from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.suites.suite import Suite
from r1plus_monitoring.curate.candidates import build_candidates
from r1plus_monitoring.curate.record import read_baseline, read_suite
from r1plus_monitoring.scoring.scorers import score

SUITES = Path(__file__).parents[3] / "monitoring" / "suites"
TIERS = {
    "smollm2-full-v1": "full",
    "smollm2-lite-v1": "lite",
    "smollm2-edge-v1": "edge",
    "qwen-lite-v1": "lite",
    "qwen-full-v1": "full",
}


@pytest.fixture(params=sorted(TIERS))
def suite(request: pytest.FixtureRequest) -> Suite:
    return read_suite(SUITES / str(request.param))


def test_every_folder_of_suites_is_known_here() -> None:
    assert sorted(path.name for path in SUITES.iterdir() if path.is_dir()) == sorted(TIERS)


def test_a_suite_has_its_folders_name_and_tier(suite: Suite) -> None:
    assert suite.header.tier == TIERS[suite.header.name]
    assert suite.header.name == f"{suite.header.family}-{suite.header.tier}-v1"


def test_a_suite_has_200_items_or_more_in_4_strata_or_more(suite: Suite) -> None:
    assert len(suite.items) >= 200
    assert len(suite.strata()) >= 4
    assert min(suite.strata().values()) >= 15


def test_no_two_items_ask_the_same(suite: Suite) -> None:
    assert len({item.prompt for item in suite.items}) == len(suite.items)


def test_every_answer_is_accepted_by_its_own_scorer(suite: Suite) -> None:
    refused = [
        (item.id, answer)
        for item in suite.items
        for answer in item.answers
        if score(item, answer, FinishReason.STOP) != OutcomeLabel.CORRECT
    ]
    assert refused == []


def test_every_item_is_a_candidate_as_it_stands(suite: Suite) -> None:
    assert set(suite.items) <= set(build_candidates(suite.header.family))


def test_the_baseline_is_of_this_suite_and_its_reference_engine(suite: Suite) -> None:
    baseline = read_baseline(SUITES / suite.header.name)
    assert baseline.suite == suite.header.sha256
    assert baseline.engine == suite.header.reference_engine
    gone = {one.id for one in baseline.dropped}
    assert all(len(set(one.lost) - gone) <= 2 for one in baseline.baseline)
