"""What a request has used is told once it has ended, whoever asks first, and within bounds."""

from r1plus_model_repo.backends.usage_records import MOST_ENDED, MOST_WAITING, UsageRecords


class Question:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def __call__(self, prompt_tokens: int, completion_tokens: int) -> None:
        self.told.append((prompt_tokens, completion_tokens))


def test_who_asks_before_the_end_is_told_at_the_end_and_who_asks_after_it_at_once() -> None:
    records, early, late = UsageRecords(), Question(), Question()
    records.begin("a")
    assert records.call_when_ended("a", early)
    assert early.told == []
    records.end("a", 7, 3)
    assert records.call_when_ended("a", late)
    assert early.told == late.told == [(7, 3)]


def test_a_request_that_is_not_known_is_not_waited_for() -> None:
    assert not UsageRecords().call_when_ended("a", Question())


def test_an_id_that_is_used_again_means_the_later_request() -> None:
    records, question = UsageRecords(), Question()
    records.begin("a")
    records.end("a", 7, 3)
    records.begin("a")
    assert records.call_when_ended("a", question)
    records.end("a", 8, 1)
    assert question.told == [(8, 1)]


def test_what_is_remembered_and_who_waits_is_bounded() -> None:
    records = UsageRecords()
    for number in range(MOST_ENDED + 1):
        records.begin(str(number))
        records.end(str(number), 1, 1)
    assert not records.call_when_ended("0", Question())
    assert records.call_when_ended("1", Question())
    records.begin("a")
    assert all(records.call_when_ended("a", Question()) for _ in range(MOST_WAITING))
    assert not records.call_when_ended("a", Question())
    records.end("a", 1, 1)
    records.begin("b")
    assert records.call_when_ended("b", Question()), "those that were told make room"
