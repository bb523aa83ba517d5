"""The tool `file_search` of a response, and `knowledge` of a chat: what is searched before the model answers.

The gateway searches for what the user asks, each time; the model does not choose. So small models have it as well.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from r1plus_assistant.files.knowledge_fields import (
    FILTERS,
    MOST_VECTOR_STORES,
    RANKING,
    RESULTS,
    SearchOptions,
    read_search_options,
)
from r1plus_assistant.knowledge.quotation import QuotedPassages, pack_passages
from r1plus_assistant.knowledge.search import SearchResult
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.body.field_tables import ListField, ObjectField, StringField, Table, read_item
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.body.json_body import Json
from r1plus_gateway.http.completions.estimated_tokens import EstimatedTokens
from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError

KIND: Final = "file_search"
TOOLS: Final = "tools"
CHOICE: Final = "tool_choice"
TYPE: Final = StringField("type", values=(KIND,), is_required=True)
_ID: Final = {"type": "string", "minLength": 1, "maxLength": 128}
STORE_IDS: Final = ListField("vector_store_ids", MOST_VECTOR_STORES, _ID, is_required=True)
TOOL: Final = Table((TYPE, STORE_IDS, RESULTS, FILTERS, RANKING))
KNOWLEDGE: Final[ObjectField] = ObjectField("knowledge", Table((STORE_IDS, RESULTS, FILTERS, RANKING)))
"""Of a chat, whose `tools` are functions only."""


@dataclass(frozen=True, slots=True)
class FileSearch:
    """What is to be searched."""

    store_ids: Sequence[str]
    options: SearchOptions
    echo: Mapping[str, Json]
    """The tool as the answer repeats it."""


@dataclass(frozen=True, slots=True)
class FoundPassages:
    """A search that was made before the model answers."""

    search: FileSearch
    question: str
    result: SearchResult

    def quote(self, budget_tokens: int) -> QuotedPassages:
        """See `FoundSources`."""
        return pack_passages(self.result, self.question, budget_tokens, EstimatedTokens())


KnowledgeFinder = Callable[[FileSearch, str, Caller], Awaitable[FoundPassages]]


async def refuse_search(_: FileSearch, __: str, ___: Caller) -> FoundPassages:
    """Refuse a search, for a gateway without stored knowledge. Raises UnsupportedFieldError."""
    raise UnsupportedFieldError(KIND, "this gateway has no vector stores; leave it out")


def has_file_search(fields: Fields) -> bool:
    """Return whether the tool `file_search` is there."""
    entries = fields.get(TOOLS)
    return isinstance(entries, list) and any(isinstance(one, dict) and one.get("type") == KIND for one in entries)


def split_file_search(fields: Fields) -> tuple[Fields, FileSearch | None]:
    """Return the fields without the tool `file_search`, and what it asks for.

    Raises:
        InvalidFieldError: it has another form, or is there twice.
    """
    entries = fields.get(TOOLS)
    if not isinstance(entries, list):
        return fields, None
    places = [place for place, one in enumerate(entries) if isinstance(one, dict) and one.get("type") == KIND]
    if not places:
        return fields, None
    path = f"{TOOLS}[{places[0]}]"
    if len(places) > 1:
        raise InvalidFieldError(f"{TOOLS}[{places[1]}]", "is a second file_search; name all vector stores in one")
    search = _read_search(read_item(path, entries[places[0]]), TOOL)
    choice, others = fields.get(CHOICE), [one for place, one in enumerate(entries) if place != places[0]]
    is_named = isinstance(choice, dict) and choice.get("type") == KIND
    changes: dict[str, Json] = {TOOLS: others or None}
    if is_named or (not others and choice in ("required", "auto", "none")):
        changes[CHOICE] = None
    return fields.change(changes), None if choice == "none" else search


class ChatKnowledge:
    """The field `knowledge` of a chat; see `SourceProvider`."""

    field: Final = KNOWLEDGE

    def __init__(self, find: KnowledgeFinder = refuse_search) -> None:
        self._find = find

    async def find(self, fields: Fields, caller: Caller, find_question: Callable[[], str]) -> FoundPassages | None:
        """See `SourceProvider`."""
        search = read_knowledge(fields)
        return None if search is None else await self._find(search, find_question(), caller)


def read_knowledge(fields: Fields) -> FileSearch | None:
    """Return what a chat searches. Raises InvalidFieldError."""
    options = KNOWLEDGE.read(fields)
    return None if options is None else _read_search(options, KNOWLEDGE.table)


def _read_search(fields: Fields, table: Table) -> FileSearch:
    ids = STORE_IDS.read(fields)
    for position, one in enumerate(ids):
        if not isinstance(one, str) or not one:
            path = f"{fields.locate(STORE_IDS.name)}[{position}]"
            raise InvalidFieldError(path, "expected the id of a vector store", code="invalid_type")
    options = read_search_options(fields)
    table.refuse_rest(fields)
    names = (RESULTS.name, FILTERS.name, RANKING.name)
    echo = {"type": KIND, STORE_IDS.name: ids, **{name: fields.get(name) for name in names}}
    return FileSearch([str(one) for one in ids], options, echo)


def build_results(quoted: QuotedPassages) -> list[dict[str, Any]]:
    """Return the passages with their texts, for who asks for them."""
    return [
        {
            "file_id": passage.file_id,
            "filename": passage.file_name,
            "score": round(passage.score, 6),
            "text": passage.chunk.text,
            "attributes": dict(passage.attributes),
        }
        for passage in quoted.passages
    ]
