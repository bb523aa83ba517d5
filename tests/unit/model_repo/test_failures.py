"""A request that fails before the engine has it is answered, whatever was raised."""

import pytest

from r1plus_model_repo.backends.failures import answer_failures
from r1plus_model_repo.backends.requests import RefusedError, SchemaMemoryFullError
from support.model_repo.fake_engine import FakeClient, FakeMeters

FAILURES = {
    "a refusal": (RefusedError("seed: wrong"), "refused", "seed: wrong", "", ""),
    "no memory for a schema": (
        SchemaMemoryFullError("SchemaMemoryFull: grammar"),
        "schema_memory_full",
        "",
        "",
        "SchemaMemoryFull: grammar",
    ),
    "an error of a reader": (
        RecursionError("too deep"),
        "error",
        "",
        "the engine could not read the request: RecursionError: too deep",
        "",
    ),
}


@pytest.mark.parametrize("error, result, refusal, failed, turned_away", FAILURES.values(), ids=FAILURES.keys())
def test_a_failure_is_counted_and_answered_once(
    error: Exception, result: str, refusal: str, failed: str, turned_away: str
) -> None:
    client, meters = FakeClient(), FakeMeters()
    with answer_failures(client, meters):
        raise error
    assert (client.refusal, client.failed, client.turned_away) == (refusal, failed, turned_away)
    assert meters.results == [result]


def test_a_request_that_is_read_gets_no_answer_from_here() -> None:
    client, meters = FakeClient(), FakeMeters()
    with answer_failures(client, meters):
        pass
    assert (client.over.is_set(), meters.results) == (False, [])
