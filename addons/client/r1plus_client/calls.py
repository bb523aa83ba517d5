"""Calls of stored data without any input or output: what to send, and how to read the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

from r1plus_client.protocol import build_evidence
from r1plus_client.stored_types import (
    Citation,
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
from r1plus_client.types import Usage

T = TypeVar("T")
Json = Mapping[str, Any]
ENTRIES_PER_PAGE: Final = 100
DEFAULT_PURPOSE: Final = "assistants"


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and what makes a value of its answer: (headers, body)."""

    method: str
    path: str
    parse: Callable[[Mapping[str, str], bytes], T]
    body: Json | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    """Fields that go with `file`."""
    file: tuple[str, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some entries of a list, and the id to go on behind; empty: they are the last."""

    entries: Sequence[T]
    after: str


@dataclass(frozen=True, slots=True)
class PagedCall(Generic[T]):
    """A list that comes in pages."""

    path: str
    parse: Callable[[Json], T]
    query: Mapping[str, str] = field(default_factory=dict)

    def get_page(self, after: str) -> Call[Page[T]]:
        """Return the call of the page behind an id; empty: the first."""
        query = {**self.query, "limit": str(ENTRIES_PER_PAGE), **({"after": after} if after else {})}
        return Call("GET", self.path, lambda _, body: self._parse_page(json.loads(body)), query=query)

    def _parse_page(self, page: Json) -> Page[T]:
        entries = page["data"]
        return Page([self.parse(one) for one in entries], entries[-1]["id"] if page["has_more"] and entries else "")


def call(method: str, path: str, parse: Callable[[Json], T], body: Json | None = None) -> Call[T]:
    """Return a call whose answer is one object."""
    return Call(method, path, lambda _, content: parse(json.loads(content)), body)


def delete(path: str) -> Call[None]:
    """Return the call that deletes an object."""
    return Call("DELETE", path, lambda *_: None)


def join(*parts: str) -> str:
    """Return a path of the API; ids cannot leave their part. Raises ValueError for an empty id, and for dots."""
    if not all(parts):
        raise ValueError("an id is empty; give the id that the gateway returned")
    if {".", ".."} & {*parts}:  # they would be resolved: the call would reach another object
        raise ValueError("an id is of dots; give the id that the gateway returned")
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def upload_file(source: str | Path | bytes, filename: str, purpose: str, expires_after: int | None) -> Call[File]:
    """Return the call that uploads a file. Raises ValueError for bytes without a name, and OSError."""
    if isinstance(source, bytes) and not filename:
        raise ValueError("filename: missing; bytes have none, and its ending says the format")
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    name = filename or Path(str(source)).name
    form = {"purpose": purpose}
    if expires_after is not None:
        form |= {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(expires_after)}
    return Call("POST", "/v1/files", lambda _, body: parse_file(json.loads(body)), form=form, file=(name, content))


def create_response(fields: Json) -> Call[Response]:
    """Return the call that asks for an answer."""
    return Call("POST", "/v1/responses", parse_response, fields)


def drop_absent(**fields: Any) -> dict[str, Any]:
    """Return fields without those that are None."""
    return {name: value for name, value in fields.items() if value is not None}


def parse_conversation(value: Json) -> Conversation:
    """Return a conversation."""
    return Conversation(value["id"], value["created_at"], value["metadata"])


def parse_item(value: Json) -> ConversationItem:
    """Return an item of a conversation."""
    parts = value.get("content") or ()
    text = "".join(part.get("text") or "" for part in parts) if isinstance(parts, list) else str(parts)
    return ConversationItem(value["id"], value["type"], text, value)


def parse_response(headers: Mapping[str, str], body: bytes) -> Response:
    """Return an answer, new or stored."""
    value = json.loads(body)
    parts = [part for item in value["output"] if item["type"] == "message" for part in item["content"]]
    cited = [note for part in parts for note in part.get("annotations", ()) if note["type"] == "file_citation"]
    usage = value.get("usage") or {}
    evidence = value.get("r1plus") or {}
    return Response(
        value["id"],
        value["status"],
        "".join(part.get("text", "") for part in parts),
        tuple(
            Citation(
                one["file_id"], one["filename"], one["index"], one.get("page"), one.get("heading", ""), one["basis"]
            )
            for one in cited
        ),
        Usage(usage.get("input_tokens", 0), usage.get("output_tokens", 0)),
        value["model"],
        build_evidence(
            {
                "x-r1plus-revision": headers.get("x-r1plus-revision") or evidence.get("revision") or "",
                "x-r1plus-verdict": headers.get("x-r1plus-verdict") or evidence.get("verdict") or "",
            },
            None,
        ),
        str(evidence.get("storage") or ""),
        value,
    )


def parse_file(value: Json) -> File:
    """Return a file."""
    return File(
        value["id"],
        value["filename"],
        value["purpose"],
        value["bytes"],
        value["created_at"],
        value["expires_at"],
        value["r1plus"]["is_shared"],
    )


def parse_vector_store(value: Json) -> VectorStore:
    """Return a vector store."""
    own = value["r1plus"]
    return VectorStore(
        value["id"],
        value["name"],
        value["status"],
        value["metadata"],
        value["file_counts"],
        own["chunks"],
        own["search"],
        value["created_at"],
        value["expires_at"],
        own["is_shared"],
    )


def parse_store_file(value: Json) -> VectorStoreFile:
    """Return a file of a vector store."""
    own, error = value["r1plus"], value["last_error"] or {}
    return VectorStoreFile(
        value["id"],
        value["vector_store_id"],
        value["status"],
        own["error_code"] or "",
        error.get("message", ""),
        value["attributes"],
        own["pages"],
        own["chunks"],
        tuple(own["unreadable_pages"]),
    )


def parse_file_batch(value: Json) -> FileBatch:
    """Return a batch of files."""
    return FileBatch(value["id"], value["vector_store_id"], value["status"], value["file_counts"], value["created_at"])


def parse_hits(value: Json) -> tuple[SearchHit, ...]:
    """Return what a search has found."""
    return tuple(
        SearchHit(
            one["file_id"],
            one["filename"],
            "".join(part["text"] for part in one["content"]),
            one["score"],
            one["r1plus"]["page"],
            one["r1plus"]["heading"],
            one["r1plus"]["start"],
            one["r1plus"]["end"],
            one["attributes"],
        )
        for one in value["data"]
    )


def parse_memory(value: Json) -> Memory:
    """Return a memory."""
    return Memory(value["id"], value["text"], value["source"], value["created_at"], value["expires_at"])
