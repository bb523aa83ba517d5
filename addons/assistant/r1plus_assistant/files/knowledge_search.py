"""A search in vector stores, with its errors as answers."""

import asyncio
from collections.abc import Callable, Sequence

from r1plus_assistant.conversations.content_handlers import (
    ContentTurns,
    check_id,
    convert_content_errors,
    refuse_unknown,
)
from r1plus_assistant.files.file_search import FileSearch, FoundPassages, KnowledgeFinder
from r1plus_assistant.files.knowledge_fields import SearchOptions
from r1plus_assistant.knowledge.citations import split_passages
from r1plus_assistant.knowledge.index import IndexLimitError
from r1plus_assistant.knowledge.search import KnowledgeSearch, SearchResult, UnknownVectorStoreError
from r1plus_assistant.knowledge.service import KnowledgeService
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.errors import RequestError
from r1plus_gateway.settings import GatewayLimits
from r1plus_gateway.store.keys.content_cipher import Owner


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


def make_finder(
    service: KnowledgeService, turns: ContentTurns, read_limits: Callable[[], GatewayLimits]
) -> KnowledgeFinder:
    """Return what searches the vector stores of a caller: a search is a request that uses stored content."""

    async def find(search: FileSearch, question: str, caller: Caller) -> FoundPassages:
        for store_id in search.store_ids:
            check_id(store_id)
        with turns.take(caller, read_limits().queue_per_key), convert_content_errors():
            owner = service.knowledge.identify(caller)
            result = await search_knowledge(service.search, owner, search.store_ids, question, search.options)
        return FoundPassages(search, question, await asyncio.to_thread(split_passages, result))

    return find
