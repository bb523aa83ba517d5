"""A tenant's documents in a real cluster: pods with the embedding engine, the reader of documents, and a store to search.

`make e2e STORY=gateway`. Each place of the data is one test: a volume with one pod, and PostgreSQL with two.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import openai
import pytest

from e2e import gateways
from e2e.gateway.conftest import NAMESPACE, ServedTenant
from e2e.gateway.postgresql import PostgreSql
from e2e.gateways import ApiKey
from e2e.waiting import wait_for
from r1plus_model_repo.importing.embedding import minilm

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(3600)]

HELPERS = {"knowledge": True, "embedding": {"engine": minilm.NAME}}
CONTAINERS = ("embedder", "documents")
LIKE = ("How do I open an account?", "Opening a bank account")
OTHER = "The ship left the harbour at dawn."
HANDBOOK = """\
# Vehicles

Automobiles must be returned by six in the evening.

# Kitchen

The coffee machine is cleaned on Fridays.

# Archive

A box may be borrowed for ten days.
"""
QUESTION, ANSWER = "When do I bring the car back?", "Automobiles must be returned"
"""They share no word, so that only vectors find one by the other."""


@pytest.fixture
def with_volume(served: ServedTenant) -> None:
    """The gateway keeps documents on its volume."""
    served.configure(enabled=True, **HELPERS)
    served.until_ready_pods(1, containers=CONTAINERS)
    served.until_ready()


@pytest.fixture
def with_database(served: ServedTenant, database: PostgreSql) -> None:
    """Two pods keep them in PostgreSQL."""
    served.configure_shared(database, "t_documents", **HELPERS)
    served.until_ready_pods(2, containers=CONTAINERS)
    served.until_ready()


@pytest.mark.parametrize("where", ["with_volume", "with_database"])
def test_a_document_is_found_by_its_meaning_also_after_its_pods_are_gone(
    served: ServedTenant, where: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(where)
    key = gateways.create_key(served.kube, NAMESPACE, where)
    with _client(served, key) as client:
        _check_vectors(client)
        store = _keep_handbook(client)
        _check_found(_search(client, store))

    pods = gateways.gateway_pods(served.kube, NAMESPACE)
    for pod in pods:
        gateways.evict(served.kube, NAMESPACE, pod["metadata"]["name"])
        served.until_ready_pods(len(pods), without=pod["metadata"]["uid"])
    with _client(served, key) as client:
        found = wait_for(lambda: _search(client, store), "a search by its meaning answers")
        _check_found(found)
        client.vector_stores.delete(store)
        with pytest.raises(openai.NotFoundError):
            _search(client, store)


@contextmanager
def _client(served: ServedTenant, key: ApiKey) -> Iterator[openai.OpenAI]:
    with gateways.reach(served.target, NAMESPACE) as url, gateways.open_client(url, key.secret) as client:
        yield client


def _check_vectors(client: openai.OpenAI) -> None:
    """Texts of like meaning have vectors whose product is near 1, and the answer names the engine by its digest."""
    answer = client.embeddings.with_raw_response.create(model=minilm.NAME, input=[*LIKE, OTHER])
    assert answer.headers["x-r1plus-engine"] == f"{minilm.NAME}@sha256:{minilm.load_catalog_digest()}"
    one, same, other = (each.embedding for each in answer.parse().data)
    assert _multiply(one, same) > 0.7 > 0.3 > _multiply(one, other)


def _multiply(one: list[float], other: list[float]) -> float:
    """Return the scalar product, which is the cosine of vectors of length 1."""
    return sum(left * right for left, right in zip(one, other, strict=True))


def _keep_handbook(client: openai.OpenAI) -> str:
    """Upload the handbook into a vector store of its own, and wait until it was read; return the store's id."""
    file = client.files.create(file=("handbook.md", HANDBOOK.encode()), purpose="assistants")
    store = client.vector_stores.create(name="handbook", file_ids=[file.id])

    def is_read() -> bool:
        counts = client.vector_stores.retrieve(store.id).file_counts
        assert counts.failed == 0, counts
        return counts.completed == 1

    wait_for(is_read, "the handbook is read")
    return store.id


def _check_found(text: str) -> None:
    """A passage of the handbook that answers, and no other of its passages with it."""
    assert ANSWER in text
    assert "coffee" not in text


def _search(client: openai.OpenAI, store: str) -> str:
    """Return the text of the passage that is found first, or "" if none is."""
    found = client.vector_stores.search(store, query=QUESTION, max_num_results=1).data
    return found[0].content[0].text if found else ""
