"""Passages of a stored answer: it keeps where they are, not their texts, which are read when it is shown.

So a passage goes with its file, or with the vector store that it was found in: a stored answer holds no copy of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from r1plus_assistant.knowledge.quotation import QuotedPassages
from r1plus_assistant.store.knowledge_reader import KnowledgeReader

_PLACE: Final = "place"
_TEXT: Final = "text"


def build_references(quoted: QuotedPassages) -> list[dict[str, Any]]:
    """Return what is stored of the passages that an answer quotes."""
    return [
        {
            "file_id": passage.file_id,
            "filename": passage.file_name,
            "score": round(passage.score, 6),
            "attributes": dict(passage.attributes),
            _PLACE: [passage.vector_store_id, passage.batch, passage.index, passage.chunk.start],
        }
        for passage in quoted.passages
    ]


def read_results(reader: KnowledgeReader, stored: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the passages that are still there, with their texts. Raises UnreadableContentError.

    Answers of earlier releases have the texts themselves; they are shown while their files are there.
    """
    results = []
    for one in stored:
        text = _read_text(reader, one) if reader.find_file(one["file_id"]) is not None else None
        if text is not None:
            results.append({name: value for name, value in one.items() if name != _PLACE} | {_TEXT: text})
    return results


def _read_text(reader: KnowledgeReader, stored: Mapping[str, Any]) -> str | None:
    if _PLACE not in stored:
        return str(stored[_TEXT])
    store_id, batch, index, start = stored[_PLACE]
    file = reader.find_store_file(store_id, stored["file_id"])
    chunk = None if file is None else reader.read_chunk(file, batch, index)
    return None if chunk is None or chunk.start != start else chunk.text
