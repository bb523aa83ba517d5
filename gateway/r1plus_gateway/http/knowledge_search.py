"""A search in vector stores, with its errors as answers."""

from collections.abc import Sequence

from r1plus_gateway.http.content_handlers import refuse_unknown
from r1plus_gateway.http.errors import RequestError
from r1plus_gateway.http.knowledge_fields import SearchOptions
from r1plus_gateway.knowledge.index import IndexLimitError
from r1plus_gateway.knowledge.search import KnowledgeSearch, SearchResult, UnknownVectorStoreError
from r1plus_gateway.store.content_cipher import Owner


async def search_knowledge(
    search: KnowledgeSearch, owner: Owner, store_ids: Sequence[str], question: str, options: SearchOptions
) -> SearchResult:
    """Return what is found.

    Raises:
        RequestError: 404 for a vector store that is not there, 413 for one that is too large.
    """
    try:
        return await search.find(owner, store_ids, question, options.most, options.condition, options.least_score)
    except UnknownVectorStoreError as error:
        raise refuse_unknown(error.store_id) from error
    except IndexLimitError as error:
        raise RequestError(413, "vector_store_too_large", str(error)) from error
