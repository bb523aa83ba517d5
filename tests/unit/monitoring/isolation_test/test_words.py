"""Last words: whole JSON within what the kubelet keeps, every try with how it ended."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract.jsonable import dumps, loads
from r1plus_contract.monitor.isolation import AttemptFinding, AttemptOutcome, Findings
from r1plus_contract.process.termination import MAX_MESSAGE
from r1plus_monitoring.isolation_test.termination_message import encode_findings, minimal_size

pytestmark = pytest.mark.first_run_counts

TEXTS = st.text(st.characters(codec="utf-8"), max_size=300)
TRIES = st.lists(
    st.builds(
        AttemptFinding,
        st.text(st.characters(codec="utf-8"), max_size=40),
        st.sampled_from(AttemptOutcome),
        st.integers(0, 9_999_999),
        TEXTS,
    ),
    max_size=40,
)


def fits(findings: Findings) -> bool:
    return len(dumps(findings).encode()) <= MAX_MESSAGE


@given(TRIES)
def test_nothing_but_details_is_ever_cut(tries: list[AttemptFinding]) -> None:
    if minimal_size(one.n for one in tries) > MAX_MESSAGE:
        return
    words = encode_findings(Findings(tuple(tries)))
    assert len(words.encode()) <= MAX_MESSAGE
    assert len(words) <= MAX_MESSAGE
    found = loads(Findings, words)
    assert dumps(found) == words
    assert [(one.n, one.o, one.late) for one in found.tries] == [(one.n, one.o, one.late) for one in tries]
    assert all(ordered.d.startswith(one.d) for one, ordered in zip(found.tries, tries, strict=True))


@given(TRIES)
def test_what_fits_is_not_cut(tries: list[AttemptFinding]) -> None:
    findings = Findings(tuple(tries))
    if fits(findings):
        assert encode_findings(findings) == dumps(findings)


@pytest.mark.parametrize("letter", ["x", "ä", "世", '"', "\\", "\n", "\x01"], ids=ascii)
def test_thirty_two_doors_with_much_to_say(letter: str) -> None:
    tries = tuple(
        AttemptFinding(f"decoy-pod-address-{n:02}:8000", AttemptOutcome.FAILED, 30_000, letter * 4000)
        for n in range(32)
    )
    words = encode_findings(Findings(tries))
    assert len(words.encode()) <= MAX_MESSAGE
    found = loads(Findings, words)
    assert [one.n for one in found.tries] == [one.n for one in tries]
    # As much as fits: one more letter each, and it would not.
    kept = len(found.tries[0].d)
    assert kept > 0
    more = Findings(tuple(AttemptFinding(one.n, one.o, one.late, letter * (kept + 1)) for one in tries))
    assert not fits(more)


def test_names_that_leave_no_room_for_a_detail() -> None:
    """To the byte."""
    bare = minimal_size([""])
    name = "n" * (MAX_MESSAGE - bare)
    words = encode_findings(Findings((AttemptFinding(name, AttemptOutcome.FAILED, 9_999_999, "said"),)))
    assert len(words) == MAX_MESSAGE
    assert loads(Findings, words).tries == (AttemptFinding(name, AttemptOutcome.FAILED, 9_999_999),)
