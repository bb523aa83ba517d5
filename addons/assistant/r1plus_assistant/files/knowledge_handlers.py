"""What handlers of knowledge share: whose it is, what may be changed, and how files and vector stores are written."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from r1plus_assistant.conversations.content_handlers import (
    Authenticate,
    ContentHandlers,
    ContentTurns,
    refuse_unknown,
)
from r1plus_assistant.knowledge.search import SearchMethod
from r1plus_assistant.knowledge.service import KnowledgeService
from r1plus_assistant.store.tenant_content import TenantContent
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.body.bodies import BodyBudget
from r1plus_gateway.http.errors import InvalidFieldError, NotConfiguredError, RequestError
from r1plus_gateway.settings import GatewaySettings
from r1plus_gateway.store.content.knowledge import (
    FileBatch,
    IngestionProblem,
    IngestionState,
    StoredFile,
    VectorStore,
    VectorStoreFile,
)
from r1plus_gateway.store.keys.content_cipher import Owner

T = TypeVar("T")
NOT_ENABLED: Final = (
    "this tenant stores no files and no vector stores; ask the platform team to set spec.gateway.knowledge of the"
    " R1PlusTenant"
)
NO_READER: Final = (
    "this gateway has no reader of documents; ask the platform team to run its container documents in the gateway's pod"
)
_UNSUPPORTED: Final = ("unsupported_format", "encrypted", "macros")
_OF_SERVER: Final = ("failed", "busy", "invalid_request", "embedding_refused", "storage_limit_exceeded")


class KnowledgeHandlers(ContentHandlers):
    """The common part of handlers of files and vector stores. They cost no tokens."""

    def __init__(
        self,
        content: TenantContent,
        authenticate: Authenticate,
        turns: ContentTurns,
        bodies: BodyBudget,
        read_settings: Callable[[], GatewaySettings],
        parts: KnowledgeService,
    ) -> None:
        super().__init__(content, authenticate, turns, bodies, read_settings)
        self._parts = parts
        self._knowledge = parts.knowledge

    def _require_knowledge(self) -> None:
        """Raise RequestError 403 where the tenant's policy stores no knowledge."""
        if not self._knowledge.is_enabled:
            raise RequestError(403, "knowledge_disabled", NOT_ENABLED)

    def _require_reader(self) -> None:
        """Raise RequestError 503 where nothing reads documents."""
        if not self._parts.ingestion.can_read:
            raise NotConfiguredError("documents_not_configured", NO_READER)

    def _identify(self, caller: Caller) -> Owner:
        return self._knowledge.identify(caller)

    async def _refuse_foreign(self, owner: Owner, name: str, find: Callable[[Any], Any]) -> RequestError:
        """Return why an id cannot be changed: it is the key's, or nothing that this caller may see."""
        if await self._knowledge.read(owner, find) is None:
            return refuse_unknown(name)
        message = f"{name!r:.80} is the key's own, for all its end users; change it without x-r1plus-end-user"
        return RequestError(403, "not_yours", message)

    async def _refuse_addition(self, owner: Owner, store_id: str, file_id: str) -> Exception:
        """Return why a file cannot be added: one of the two is not there, or they are of two owners."""
        store, file = await self._knowledge.read(
            owner, lambda one: (one.find_vector_store(store_id), one.find_file(file_id))
        )
        if store is None or file is None:
            return refuse_unknown(file_id if store is not None else store_id)
        if store.is_shared and file.is_shared:
            return await self._refuse_foreign(owner, store_id, lambda one: one.find_vector_store(store_id))
        message = (
            "is the key's own, and the vector store an end user's, or the reverse; make a vector store for each: a"
            " search takes several"
        )
        return InvalidFieldError("file_id", message)


def describe_file(file: StoredFile) -> dict[str, Any]:
    """Return a file as OpenAI's clients read it."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at),
        "expires_at": None if file.expires_at is None else int(file.expires_at),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "r1plus": {"is_shared": file.is_shared},
    }


def describe_vector_store(store: VectorStore, method: SearchMethod) -> dict[str, Any]:
    """Return a vector store as OpenAI's clients read it."""
    counts = _describe_counts(store.counts)
    days = store.expires_days
    return {
        "id": store.id,
        "object": "vector_store",
        "created_at": int(store.created_at),
        "name": store.name,
        "description": store.description,
        "usage_bytes": store.bytes,
        "file_counts": counts,
        "status": "in_progress" if counts["in_progress"] else "completed",
        "expires_after": None if days is None else {"anchor": "last_active_at", "days": days},
        "expires_at": None if store.expires_at is None else int(store.expires_at),
        "last_active_at": int(store.used_at),
        "metadata": dict(store.attributes),
        "r1plus": {"chunks": store.chunks, "search": method.value, "is_shared": store.is_shared},
    }


def _describe_counts(counts: Mapping[IngestionState, int]) -> dict[str, int]:
    return {**{state.value: counts.get(state, 0) for state in IngestionState}, "total": sum(counts.values())}


def describe_file_batch(batch: FileBatch) -> dict[str, Any]:
    """Return a batch of files as OpenAI's clients read it."""
    counts = _describe_counts(batch.counts)
    status = IngestionState.COMPLETED
    if counts[IngestionState.IN_PROGRESS]:
        status = IngestionState.IN_PROGRESS
    elif counts[IngestionState.CANCELLED]:
        status = IngestionState.CANCELLED
    elif counts[IngestionState.FAILED] == counts["total"]:
        status = IngestionState.FAILED
    return {
        "id": batch.id,
        "object": "vector_store.files_batch",
        "created_at": int(batch.created_at),
        "vector_store_id": batch.vector_store_id,
        "status": status.value,
        "file_counts": counts,
    }


def describe_store_file(file: VectorStoreFile) -> dict[str, Any]:
    """Return a file of a vector store as OpenAI's clients read it."""
    about = file.ingestion
    static = {"max_chunk_size_tokens": about.chunk_tokens, "chunk_overlap_tokens": about.overlap_tokens}
    return {
        "id": file.file_id,
        "object": "vector_store.file",
        "created_at": int(file.created_at),
        "vector_store_id": file.vector_store_id,
        "usage_bytes": file.bytes,
        "status": file.state.value,
        "last_error": _describe_problem(about.problem),
        "chunking_strategy": {"type": "static", "static": static},
        "attributes": dict(about.attributes),
        "r1plus": {
            "pages": about.pages,
            "chunks": file.chunks,
            "reader": about.reader,
            "error_code": about.problem.code if about.problem else None,
            "unreadable_pages": [{"page": one.page, "message": one.message} for one in about.unreadable],
        },
    }


def _describe_problem(problem: IngestionProblem | None) -> dict[str, str] | None:
    """Return a problem by the codes that OpenAI has."""
    if problem is None:
        return None
    code = "invalid_file"
    if problem.code in _UNSUPPORTED:
        code = "unsupported_file"
    elif problem.code in _OF_SERVER:
        code = "server_error"
    return {"code": code, "message": problem.message}


def respond_file(name: str) -> dict[str, str]:
    """Return the headers of a download."""
    quoted = "".join(one if one.isascii() and (one.isalnum() or one in "._-") else "_" for one in name)
    return {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f'attachment; filename="{quoted}"',
        "Cache-Control": "no-store",
    }
