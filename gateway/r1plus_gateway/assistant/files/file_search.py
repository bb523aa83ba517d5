"""The tool `file_search` of a response, and `knowledge` of a chat: what is searched before the model answers.

The gateway searches for what the user asks, each time; the model does not choose. So small models have it as well.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from r1plus_contract.inference import Role
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.assistant.files.knowledge_fields import (
    FILTERS,
    MOST_VECTOR_STORES,
    RANKING,
    RESULTS,
    SearchOptions,
    read_search_options,
)
from r1plus_gateway.assistant.knowledge.citations import Citation
from r1plus_gateway.assistant.knowledge.quotation import QuotedPassages, describe_passage_place
from r1plus_gateway.assistant.knowledge.search import Passage, SearchResult
from r1plus_gateway.http.body.field_tables import ListField, ObjectField, StringField, Table, read_item
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.body.json_body import Json
from r1plus_gateway.http.completions.messages import PromptMessage
from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError

KIND: Final = "file_search"
TOOLS: Final = "tools"
CHOICE: Final = "tool_choice"
KNOWLEDGE_SHARE: Final = 0.4
"""Of the model's context, for quotations of documents."""
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


def insert_passages(messages: Sequence[PromptMessage], block: str) -> list[PromptMessage]:
    """Return the messages with quotations before what the user says last: they join it."""
    place = next((index for index in range(len(messages) - 1, -1, -1) if messages[index].role == Role.USER), None)
    if place is None:
        return [*messages, PromptMessage(Role.USER, block)]
    joined = PromptMessage(Role.USER, f"{block}\n\n{messages[place].content}")
    return [*messages[:place], joined, *messages[place + 1 :]]


def build_annotations(citations: Sequence[Citation], passages: Sequence[Passage]) -> list[dict[str, Any]]:
    """Return citations as OpenAI's clients read them, with the place in the document and the basis besides."""
    annotations = []
    for citation in citations:
        passage = passages[citation.number - 1]
        annotations.append(
            {
                "type": "file_citation",
                "index": citation.position,
                "file_id": passage.file_id,
                "filename": passage.file_name,
                **describe_passage_place(passage),
                "number": citation.number,
                "basis": citation.basis.value,
            }
        )
    return annotations


def build_knowledge_figures(quoted: QuotedPassages, citations: Sequence[Citation]) -> dict[str, Any]:
    """Return what the answer says of what was searched: the quotes by their numbers, and which are cited."""
    cited = {citation.number for citation in citations}
    return {
        "search": quoted.method.value,
        "found": quoted.found,
        "estimated_tokens": quoted.tokens,
        "passages": [
            {
                "number": number,
                "vector_store_id": passage.vector_store_id,
                "file_id": passage.file_id,
                "filename": passage.file_name,
                "score": round(passage.score, 6),
                **describe_passage_place(passage),
                "is_cited": number in cited,
            }
            for number, passage in enumerate(quoted.passages, 1)
        ],
    }


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
