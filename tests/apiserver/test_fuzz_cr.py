"""A sample of `make test-long NAME=fuzz-cr`: on every document the API server and the models are of one mind."""

import pytest

from devcluster.apiserver_only import ApiServer
from fuzz.campaign import cases, problems, run
from fuzz.judges import Server, stored, subjects
from r1plus_operator.runtime.client import ApiClient

pytestmark = pytest.mark.apiserver
SAMPLE = 500
SEED = 20_301_231
"""A sample of the same documents in every run: what fails here fails again."""


async def test_the_server_and_the_models_agree_on_a_sample(apiserver: ApiServer, client: ApiClient) -> None:
    there = await stored(client)
    async with Server(apiserver.kubeconfig) as server:
        result = await run(server, subjects(*there), SAMPLE, SEED)
    assert problems(result) == []
    assert result.cases == SAMPLE


def test_a_seed_is_a_run() -> None:
    kinds = subjects({"metadata": {"name": "stored"}}, {"metadata": {"name": "tenant"}})
    first, second = (repr([case.document for case in cases(kinds, 50, SEED)]) for _ in range(2))
    assert first == second
    assert first != repr([case.document for case in cases(kinds, 50, SEED + 1)])
