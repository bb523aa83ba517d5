"""What the synchronous client does with stored data: `client.files`, `client.vector_stores` and so on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from r1plus_client import calls
from r1plus_client.calls import DEFAULT_PURPOSE, Call, PagedCall
from r1plus_client.stored_types import (
    Conversation,
    ConversationItem,
    File,
    FileBatch,
    Memory,
    Response,
    SearchHit,
    VectorStore,
    VectorStoreFile,
)

T = TypeVar("T")
READ_SECONDS: Final = 600.0
"""Longest wait for a file to be read, unless it is given."""
POLL_SECONDS: Final = 0.5


class Runner(Protocol):
    """What sends a call."""

    def run(self, call: Call[T]) -> T:
        """Return the answer's value. Raises APIError, GatewayConnectionError."""


class _Resource:
    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def _run(self, call: Call[T]) -> T:
        return self._runner.run(call)

    def _iterate(self, pages: PagedCall[T]) -> Iterator[T]:
        after = ""
        while True:
            page = self._run(pages.get_page(after))
            yield from page.entries
            if not page.after:
                return
            after = page.after


class Conversations(_Resource):
    """Conversations, each end user's for itself. All methods raise APIError and GatewayConnectionError."""

    def create(
        self, *, items: Sequence[Mapping[str, Any]] = (), metadata: Mapping[str, str] | None = None
    ) -> Conversation:
        """Make a conversation, with items of OpenAI's form."""
        body = calls.drop_absent(items=list(items) or None, metadata=metadata)
        return self._run(calls.call("POST", calls.join("conversations"), calls.parse_conversation, body))

    def list(self) -> Iterator[Conversation]:
        """Yield the conversations, the newest first; pages are fetched as they are needed."""
        return self._iterate(PagedCall(calls.join("conversations"), calls.parse_conversation))

    def get(self, conversation_id: str) -> Conversation:
        """Return a conversation."""
        return self._run(calls.call("GET", calls.join("conversations", conversation_id), calls.parse_conversation))

    def update(self, conversation_id: str, *, metadata: Mapping[str, str]) -> Conversation:
        """Replace the metadata of a conversation."""
        path = calls.join("conversations", conversation_id)
        return self._run(calls.call("POST", path, calls.parse_conversation, {"metadata": metadata}))

    def delete(self, conversation_id: str) -> None:
        """Delete a conversation with its items."""
        self._run(calls.delete(calls.join("conversations", conversation_id)))

    def list_items(self, conversation_id: str) -> Iterator[ConversationItem]:
        """Yield the items of a conversation, the oldest first."""
        path = calls.join("conversations", conversation_id, "items")
        return self._iterate(PagedCall(path, calls.parse_item, {"order": "asc"}))

    def add_items(self, conversation_id: str, items: Sequence[Mapping[str, Any]]) -> tuple[ConversationItem, ...]:
        """Add items at the end of a conversation; return them as they are stored."""
        path = calls.join("conversations", conversation_id, "items")
        return self._run(
            calls.call("POST", path, lambda value: tuple(map(calls.parse_item, value["data"])), {"items": list(items)})
        )

    def delete_item(self, conversation_id: str, item_id: str) -> None:
        """Delete an item of a conversation."""
        self._run(calls.delete(calls.join("conversations", conversation_id, "items", item_id)))


class Responses(_Resource):
    """Answers of `/v1/responses`, which can be stored. All methods raise APIError and GatewayConnectionError."""

    def create(
        self,
        *,
        model: str,
        input: str | Sequence[Mapping[str, Any]],
        conversation: str | None = None,
        previous_response_id: str | None = None,
        vector_store_ids: Sequence[str] = (),
        max_output_tokens: int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Response:
        """Return an answer. With vector stores they are searched, and it cites; `extra` adds OpenAI's other fields."""
        tools = [{"type": "file_search", "vector_store_ids": [*vector_store_ids]}] if vector_store_ids else None
        fields = calls.drop_absent(
            model=model,
            input=input,
            conversation=conversation,
            previous_response_id=previous_response_id,
            tools=tools,
            max_output_tokens=max_output_tokens,
        )
        return self._run(calls.create_response({**fields, **(extra or {})}))

    def get(self, response_id: str) -> Response:
        """Return a stored answer."""
        return self._run(Call("GET", calls.join("responses", response_id), calls.parse_response))

    def delete(self, response_id: str) -> None:
        """Delete a stored answer."""
        self._run(calls.delete(calls.join("responses", response_id)))

    def list_input_items(self, response_id: str) -> Iterator[ConversationItem]:
        """Yield the items that a stored answer was asked with, the oldest first."""
        path = calls.join("responses", response_id, "input_items")
        return self._iterate(PagedCall(path, calls.parse_item, {"order": "asc"}))


class Files(_Resource):
    """Uploaded files. All methods raise APIError and GatewayConnectionError."""

    def upload(
        self,
        source: str | Path | bytes,
        *,
        filename: str = "",
        purpose: str = DEFAULT_PURPOSE,
        expires_after: int | None = None,
    ) -> File:
        """Upload a file, by its path or its content; `expires_after`: seconds.

        Raises:
            ValueError: content without a `filename`.
            OSError: the file cannot be read.
        """
        return self._run(calls.upload_file(source, filename, purpose, expires_after))

    def list(self, *, purpose: str = "") -> Iterator[File]:
        """Yield the files, the newest first; pages are fetched as they are needed."""
        query = {"purpose": purpose} if purpose else {}
        return self._iterate(PagedCall(calls.join("files"), calls.parse_file, query))

    def get(self, file_id: str) -> File:
        """Return a file, without its content."""
        return self._run(calls.call("GET", calls.join("files", file_id), calls.parse_file))

    def download(self, file_id: str) -> bytes:
        """Return the content of a file."""
        return self._run(Call("GET", calls.join("files", file_id, "content"), lambda _, body: body))

    def delete(self, file_id: str) -> None:
        """Delete a file, also from the vector stores that it is in."""
        self._run(calls.delete(calls.join("files", file_id)))


class VectorStores(_Resource):
    """Vector stores and their files. All methods raise APIError and GatewayConnectionError."""

    def create(
        self,
        *,
        name: str = "",
        file_ids: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
        expires_after_days: int | None = None,
    ) -> VectorStore:
        """Make a vector store; its files are read in the background. The days count from its last use."""
        expiry = None if expires_after_days is None else {"anchor": "last_active_at", "days": expires_after_days}
        body = calls.drop_absent(
            name=name or None, file_ids=list(file_ids) or None, metadata=metadata, expires_after=expiry
        )
        return self._run(calls.call("POST", calls.join("vector_stores"), calls.parse_vector_store, body))

    def list(self) -> Iterator[VectorStore]:
        """Yield the vector stores, the newest first; pages are fetched as they are needed."""
        return self._iterate(PagedCall(calls.join("vector_stores"), calls.parse_vector_store))

    def get(self, store_id: str) -> VectorStore:
        """Return a vector store."""
        return self._run(calls.call("GET", calls.join("vector_stores", store_id), calls.parse_vector_store))

    def update(
        self, store_id: str, *, name: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> VectorStore:
        """Change the name or the metadata of a vector store."""
        body, path = calls.drop_absent(name=name, metadata=metadata), calls.join("vector_stores", store_id)
        return self._run(calls.call("POST", path, calls.parse_vector_store, body))

    def delete(self, store_id: str) -> None:
        """Delete a vector store; its files stay."""
        self._run(calls.delete(calls.join("vector_stores", store_id)))

    def search(
        self,
        store_id: str,
        query: str,
        *,
        filters: Mapping[str, Any] | None = None,
        most: int | None = None,
        least_score: float | None = None,
    ) -> tuple[SearchHit, ...]:
        """Return the best passages for a query; `filters` have OpenAI's form."""
        ranking = None if least_score is None else {"score_threshold": least_score}
        body = calls.drop_absent(query=query, filters=filters, max_num_results=most, ranking_options=ranking)
        return self._run(calls.call("POST", calls.join("vector_stores", store_id, "search"), calls.parse_hits, body))

    def add_file(self, store_id: str, file_id: str, *, attributes: Mapping[str, Any] | None = None) -> VectorStoreFile:
        """Add a file, which is read in the background; `wait_for_file` waits for it."""
        body = calls.drop_absent(file_id=file_id, attributes=attributes)
        path = calls.join("vector_stores", store_id, "files")
        return self._run(calls.call("POST", path, calls.parse_store_file, body))

    def wait_for_file(self, store_id: str, file_id: str, *, seconds: float = READ_SECONDS) -> VectorStoreFile:
        """Return a file of a vector store once it was read, or cannot be: see its `status`.

        Raises:
            TimeoutError: it is still `in_progress` after so many seconds. It is read on.
        """
        ends = time.monotonic() + seconds
        while (file := self.get_file(store_id, file_id)).status == "in_progress":
            if time.monotonic() > ends:
                raise TimeoutError(f"{file_id} is not read after {seconds:g} s: {file.chunks} chunks; wait longer")
            time.sleep(POLL_SECONDS)
        return file

    def list_files(self, store_id: str, *, status: str = "") -> Iterator[VectorStoreFile]:
        """Yield the files of a vector store, the newest first; `status`: those in this state only."""
        path = calls.join("vector_stores", store_id, "files")
        return self._iterate(PagedCall(path, calls.parse_store_file, {"filter": status} if status else {}))

    def get_file(self, store_id: str, file_id: str) -> VectorStoreFile:
        """Return a file of a vector store, and how far it was read."""
        path = calls.join("vector_stores", store_id, "files", file_id)
        return self._run(calls.call("GET", path, calls.parse_store_file))

    def update_file(self, store_id: str, file_id: str, *, attributes: Mapping[str, Any]) -> VectorStoreFile:
        """Replace the attributes of a file, by which searches are filtered."""
        path = calls.join("vector_stores", store_id, "files", file_id)
        return self._run(calls.call("POST", path, calls.parse_store_file, {"attributes": attributes}))

    def remove_file(self, store_id: str, file_id: str) -> None:
        """Remove a file from a vector store; the file stays."""
        self._run(calls.delete(calls.join("vector_stores", store_id, "files", file_id)))

    def add_files(
        self, store_id: str, file_ids: Sequence[str], *, attributes: Mapping[str, Any] | None = None
    ) -> FileBatch:
        """Add up to 2,000 files, all or none, which are read in the background; `wait_for_batch` waits for them."""
        body = calls.drop_absent(file_ids=list(file_ids), attributes=attributes)
        path = calls.join("vector_stores", store_id, "file_batches")
        return self._run(calls.call("POST", path, calls.parse_file_batch, body))

    def get_batch(self, store_id: str, batch_id: str) -> FileBatch:
        """Return a batch, and how many of its files were read."""
        path = calls.join("vector_stores", store_id, "file_batches", batch_id)
        return self._run(calls.call("GET", path, calls.parse_file_batch))

    def wait_for_batch(self, store_id: str, batch_id: str, *, seconds: float = READ_SECONDS) -> FileBatch:
        """Return a batch once each of its files was read, or cannot be: see `list_batch_files`.

        Raises:
            TimeoutError: some are still `in_progress` after so many seconds. They are read on.
        """
        ends = time.monotonic() + seconds
        while (batch := self.get_batch(store_id, batch_id)).status == "in_progress":
            if time.monotonic() > ends:
                left = batch.file_counts["in_progress"]
                raise TimeoutError(f"{left} files of {batch_id} are not read after {seconds:g} s; wait longer")
            time.sleep(POLL_SECONDS)
        return batch

    def list_batch_files(self, store_id: str, batch_id: str, *, status: str = "") -> Iterator[VectorStoreFile]:
        """Yield the files of a batch, the newest first; `status`: those in this state only."""
        path = calls.join("vector_stores", store_id, "file_batches", batch_id, "files")
        return self._iterate(PagedCall(path, calls.parse_store_file, {"filter": status} if status else {}))

    def cancel_batch(self, store_id: str, batch_id: str) -> FileBatch:
        """Read no further files of a batch; those that were read stay."""
        path = calls.join("vector_stores", store_id, "file_batches", batch_id, "cancel")
        return self._run(calls.call("POST", path, calls.parse_file_batch, {}))


class Memories(_Resource):
    """What is remembered of an end user. All methods raise APIError and GatewayConnectionError."""

    def create(self, text: str, *, expires_after_days: int | None = None) -> Memory:
        """Pin a memory."""
        body = calls.drop_absent(text=text, expires_after_days=expires_after_days)
        return self._run(calls.call("POST", calls.join("memories"), calls.parse_memory, body))

    def list(self) -> Iterator[Memory]:
        """Yield the memories, the newest first; pages are fetched as they are needed."""
        return self._iterate(PagedCall(calls.join("memories"), calls.parse_memory))

    def get(self, memory_id: str) -> Memory:
        """Return a memory."""
        return self._run(calls.call("GET", calls.join("memories", memory_id), calls.parse_memory))

    def update(self, memory_id: str, *, text: str | None = None, expires_after_days: int | None = None) -> Memory:
        """Change the text of a memory, or how long it is kept."""
        body = calls.drop_absent(text=text, expires_after_days=expires_after_days)
        return self._run(calls.call("POST", calls.join("memories", memory_id), calls.parse_memory, body))

    def delete(self, memory_id: str) -> None:
        """Delete a memory."""
        self._run(calls.delete(calls.join("memories", memory_id)))
