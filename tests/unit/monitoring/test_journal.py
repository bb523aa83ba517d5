"""The outcomes' file: every number once, whatever happened to the process or to the file."""

from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract.monitor.outcomes import MOST_OUTCOMES, ProbeResult
from r1plus_monitoring.store.journal import OUTCOMES_FILE, Journal
from r1plus_policies.gate.verdict import VerdictSubject

OURS = VerdictSubject("identity", "suite", "hash", "1")
OTHER = VerdictSubject("identity", "suite", "other hash", "1")


def opened(folder: Path, subject: VerdictSubject = OURS, numbers: "count[int]" = count(1)) -> Journal:  # noqa: B008
    return Journal(folder, subject, lambda: f"epoch-{next(numbers)}")


def filled(folder: Path, n: int) -> Journal:
    journal = opened(folder)
    for i in range(n):
        journal.append(f"i{i}", ProbeResult.CORRECT)
    return journal


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    first = filled(tmp_path, 3)
    again = opened(tmp_path)
    assert (again.header, again.outcomes_after(0)) == (first.header, first.outcomes_after(0))
    assert again.append("x", ProbeResult.SERVER_ERROR).sequence == 4
    assert [o.sequence for o in again.outcomes_after(2)] == [3, 4]


def test_another_subject_is_another_epoch(tmp_path: Path) -> None:
    first = filled(tmp_path, 3)
    other = opened(tmp_path, OTHER)
    assert (other.newest, other.header.subject) == (0, OTHER)
    back = opened(tmp_path)
    assert back.newest == 0
    assert len({first.header.epoch, other.header.epoch, back.header.epoch}) == 3


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_line_that_was_half_written_was_never_served(tmp_path: Path, cut: int) -> None:
    first = filled(tmp_path, 3)
    path = tmp_path / OUTCOMES_FILE
    path.write_bytes(path.read_bytes()[:-cut])
    again = opened(tmp_path)
    assert (again.header.epoch, again.newest) == (first.header.epoch, 2)
    assert again.append("x", ProbeResult.INCORRECT).sequence == 3
    assert opened(tmp_path).outcomes_after(0) == again.outcomes_after(0)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda text: "", id="empty"),
        pytest.param(lambda text: "nonsense\n", id="no head"),
        pytest.param(lambda text: text.replace('"sequence":2', '"sequence":7'), id="a number out of turn"),
        pytest.param(lambda text: text.replace('"item":"i1"', '"item":i1'), id="a damaged line before others"),
        pytest.param(lambda text: "\x00" * 50 + "\n" + text, id="zeros before it"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_a_new_epoch(tmp_path: Path, damage: object) -> None:
    first = filled(tmp_path, 3)
    path = tmp_path / OUTCOMES_FILE
    path.write_text(damage(path.read_text()))  # type: ignore[operator]
    again = opened(tmp_path)
    assert (again.header.epoch != first.header.epoch, again.newest, again.outcomes_after(0)) == (True, 0, ())
    assert again.append("x", ProbeResult.CORRECT).sequence == 1


def test_the_newest_are_kept_and_the_file_stays_short(tmp_path: Path) -> None:
    journal = filled(tmp_path, 2 * MOST_OUTCOMES + 10)
    assert (journal.newest, len(journal.outcomes_after(0))) == (2 * MOST_OUTCOMES + 10, MOST_OUTCOMES)
    assert len((tmp_path / OUTCOMES_FILE).read_text().splitlines()) <= MOST_OUTCOMES + 11
    again = opened(tmp_path)
    assert again.outcomes_after(0) == journal.outcomes_after(0)
    page = again.build_page(journal.newest - 2, "credit-1", 49)
    assert (page.oldest, page.newest, page.watched) == (MOST_OUTCOMES + 11, journal.newest, 49)
    assert [o.sequence for o in page.outcomes] == [journal.newest - 1, journal.newest]


@given(st.integers(0, 30), st.integers(-5, 40))
def test_a_page_holds_what_came_after(tmp_path_factory: pytest.TempPathFactory, n: int, since: int) -> None:
    page = filled(tmp_path_factory.mktemp("journal"), n).build_page(since, "r", 1)
    assert [o.sequence for o in page.outcomes] == [k for k in range(1, n + 1) if k > since]
    assert (page.oldest, page.newest) == (1, n)
