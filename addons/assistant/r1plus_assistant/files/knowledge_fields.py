"""Fields of requests about knowledge: attributes, chunks, expiry, and what a search asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from r1plus_assistant.knowledge.chunking import AUTO_OVERLAP, AUTO_TOKENS, LEAST_TOKENS, MOST_TOKENS, ChunkSize
from r1plus_assistant.knowledge.filters import (
    COMPARISONS,
    COMPOUNDS,
    LISTS,
    PLAIN,
    Comparison,
    Compound,
    Filter,
)
from r1plus_gateway.http.body.field_tables import (
    NULL,
    FlagField,
    IntegerField,
    NumberField,
    ObjectField,
    OtherField,
    StringField,
    Table,
    choose,
)
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.body.json_body import Json
from r1plus_gateway.http.body.metadata import MOST_NAME_CHARACTERS, MOST_PAIRS, MOST_VALUE_CHARACTERS
from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError

MOST_VECTOR_STORES: Final = 8
"""That one search looks into."""
MOST_RESULTS: Final = 50
DEFAULT_RESULTS: Final = 10
MOST_QUERIES: Final = 8
MOST_QUERY_CHARACTERS: Final = 4096
MOST_FILTERS: Final = 32
"""Of one search, at all levels."""
DEEPEST_FILTER: Final = 4
MOST_FILTER_VALUES: Final = 32


@dataclass(frozen=True, slots=True)
class AttributesField:
    """Pairs of names and texts, numbers or flags."""

    name: str = "attributes"
    is_required: bool = False

    def read(self, fields: Fields) -> Mapping[str, Any]:
        """Return the pairs; none without the field. Raises InvalidFieldError."""
        pairs = fields.get(self.name)
        if pairs is None and self.is_required:
            raise fields.build_missing_error(self.name)
        if pairs is None:
            return {}
        if not isinstance(pairs, dict):
            raise fields.build_type_error(self.name, "an object", pairs)
        if len(pairs) > MOST_PAIRS:
            raise fields.build_value_error(self.name, f"{len(pairs)} pairs exceed {MOST_PAIRS}")
        for name, value in pairs.items():
            path = f"{fields.locate(self.name)}.{name}"[:120]
            if len(name) > MOST_NAME_CHARACTERS:
                raise InvalidFieldError(path, f"a name of {len(name)} characters exceeds {MOST_NAME_CHARACTERS}")
            if not isinstance(value, str | int | float):
                raise InvalidFieldError(path, "expected a string, a number or a flag", code="invalid_type")
            if isinstance(value, str) and len(value) > MOST_VALUE_CHARACTERS:
                raise InvalidFieldError(path, f"{len(value)} characters exceed {MOST_VALUE_CHARACTERS}")
        return pairs

    def build_schema(self) -> dict[str, Json]:
        """See `Field`."""
        return {
            "type": "object",
            "maxProperties": MOST_PAIRS,
            "propertyNames": {"maxLength": MOST_NAME_CHARACTERS},
            "additionalProperties": {"type": ["string", "number", "boolean"], "maxLength": MOST_VALUE_CHARACTERS},
        }


ATTRIBUTES: Final = AttributesField()
ANCHOR: Final = StringField("anchor", values=("last_active_at",), is_required=True)
DAYS: Final = IntegerField("days", 1, 365, is_required=True)
EXPIRES_AFTER: Final = ObjectField("expires_after", Table((ANCHOR, DAYS)))
STRATEGY: Final = StringField("type", values=("auto", "static"), is_required=True)
CHUNK_TOKENS: Final = IntegerField("max_chunk_size_tokens", LEAST_TOKENS, MOST_TOKENS, is_required=True)
OVERLAP: Final = IntegerField("chunk_overlap_tokens", 0, MOST_TOKENS // 2, is_required=True)
STATIC: Final = ObjectField("static", Table((CHUNK_TOKENS, OVERLAP)), is_required=True)
AUTO_STRATEGY: Final = Table((StringField("type", values=("auto",), is_required=True),))
STATIC_STRATEGY: Final = Table((StringField("type", values=("static",), is_required=True), STATIC))
CHUNKING: Final = OtherField("chunking_strategy", choose([AUTO_STRATEGY, STATIC_STRATEGY]))
RANKER: Final = StringField("ranker", values=("auto", "none", "default-2024-08-21", "default-2024-11-15"))
THRESHOLD: Final = NumberField("score_threshold", 0.0, 1.0)
RANKING: Final = ObjectField("ranking_options", Table((RANKER, THRESHOLD)))
_TEXT: Final = {"type": "string", "minLength": 1, "maxLength": MOST_QUERY_CHARACTERS}
QUERY: Final = OtherField(
    "query",
    {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MOST_QUERIES}]},
    is_required=True,
)
RESULTS: Final = IntegerField("max_num_results", 1, MOST_RESULTS)
REWRITE: Final = FlagField("rewrite_query")
_VALUE: Final[dict[str, Json]] = {"type": ["string", "number", "boolean"], "maxLength": MOST_VALUE_CHARACTERS}
_KEY: Final[dict[str, Json]] = {"type": "string", "minLength": 1, "maxLength": MOST_NAME_CHARACTERS}


def _describe_comparison(kinds: Sequence[str], value: Mapping[str, Json]) -> dict[str, Json]:
    properties = {"type": {"enum": list(kinds)}, "key": _KEY, "value": dict(value)}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": NULL}


def _describe_filter(depth: int) -> dict[str, Json]:
    """Return the schema of a filter of at most so many levels."""
    values = {"type": "array", "items": _VALUE, "maxItems": MOST_FILTER_VALUES}
    one = [_describe_comparison(PLAIN, _VALUE), _describe_comparison(LISTS, values)]
    if depth == 1:
        return {"anyOf": one}
    inner = {"type": "array", "items": _describe_filter(depth - 1), "minItems": 1, "maxItems": MOST_FILTERS}
    properties = {"type": {"enum": list(COMPOUNDS)}, "filters": inner}
    compound = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": NULL}
    return {"anyOf": [*one, compound]}


FILTERS: Final = OtherField("filters", _describe_filter(DEEPEST_FILTER))
SEARCH: Final = Table(
    (QUERY, RESULTS, FILTERS, RANKING, OtherField(REWRITE.name, {"type": "boolean", "const": False})),
)


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What a search may return."""

    most: int = DEFAULT_RESULTS
    condition: Filter | None = None
    least_score: float = 0.0


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What a search asks for."""

    texts: Sequence[str]
    options: SearchOptions

    @property
    def text(self) -> str:
        """All texts as one question."""
        return "\n".join(self.texts)


def read_search(fields: Fields) -> SearchQuery:
    """Return what a search asks for. Raises InvalidFieldError."""
    value = fields.get(QUERY.name)
    texts = value if isinstance(value, list) else [value]
    if value in (None, "", []):
        raise fields.build_missing_error(QUERY.name)
    if len(texts) > MOST_QUERIES:
        raise fields.build_value_error(QUERY.name, f"{len(texts)} texts exceed {MOST_QUERIES}")
    for text in texts:
        if not isinstance(text, str):
            raise fields.build_type_error(QUERY.name, "a text or a list of texts", text)
        if not 1 <= len(text) <= MOST_QUERY_CHARACTERS:
            message = f"a text of {len(text)} characters is not between 1 and {MOST_QUERY_CHARACTERS}"
            raise fields.build_value_error(QUERY.name, message)
    if REWRITE.read(fields):
        raise UnsupportedFieldError(REWRITE.name, "no model rewrites questions here; leave it out")
    return SearchQuery(texts, read_search_options(fields))


def read_search_options(fields: Fields) -> SearchOptions:
    """Return what a search, or a tool that searches, may return. Raises InvalidFieldError."""
    most = RESULTS.read(fields) or DEFAULT_RESULTS
    ranking, least = RANKING.read(fields), 0.0
    if ranking is not None:
        RANKER.read(ranking)
        least = THRESHOLD.read(ranking) or 0.0
        RANKING.table.refuse_rest(ranking)
    return SearchOptions(most, _read_filters(fields), least)


def read_expiry_days(fields: Fields) -> int | None:
    """Return the days after its last use that a vector store expires; None: never. Raises InvalidFieldError."""
    expiry = EXPIRES_AFTER.read(fields)
    if expiry is None:
        return None
    ANCHOR.read(expiry)
    days = DAYS.read(expiry)
    if days is None:
        raise expiry.build_missing_error(DAYS.name)
    EXPIRES_AFTER.table.refuse_rest(expiry)
    return days


def read_chunk_size(fields: Fields) -> ChunkSize:
    """Return how large chunks are. Raises InvalidFieldError."""
    strategy = fields.read_object(CHUNKING.name)
    kind = "auto" if strategy is None else STRATEGY.read(strategy)
    if strategy is None or kind == "auto":
        if strategy is not None:
            AUTO_STRATEGY.refuse_rest(strategy)
        return ChunkSize(AUTO_TOKENS, AUTO_OVERLAP)
    static = STATIC.read(strategy)
    STATIC_STRATEGY.refuse_rest(strategy)
    assert static is not None
    tokens, overlap = CHUNK_TOKENS.read(static), OVERLAP.read(static)
    STATIC.table.refuse_rest(static)
    for field, value in ((CHUNK_TOKENS, tokens), (OVERLAP, overlap)):
        if value is None:
            raise static.build_missing_error(field.name)
    assert tokens is not None
    assert overlap is not None
    if overlap > tokens // 2:
        raise static.build_value_error(OVERLAP.name, f"{overlap} is more than half of {tokens}")
    return ChunkSize(tokens, overlap)


def _read_filters(fields: Fields) -> Filter | None:
    value = fields.get(FILTERS.name)
    if value is None:
        return None
    count = [0]
    return _read_filter(fields.locate(FILTERS.name), value, 1, count)


def _read_filter(path: str, value: Json, depth: int, count: list[int]) -> Filter:
    count[0] += 1
    if count[0] > MOST_FILTERS or depth > DEEPEST_FILTER:
        raise InvalidFieldError(path, f"more than {MOST_FILTERS} filters, or {DEEPEST_FILTER} levels")
    if not isinstance(value, dict):
        raise InvalidFieldError(path, "expected an object", code="invalid_type")
    fields = Fields(value, path)
    kind = fields.read_string("type", most=16)
    if kind in COMPOUNDS:
        inner = fields.read_list("filters", MOST_FILTERS)
        fields.refuse_rest({"type", "filters"}, {})
        if not inner:
            raise fields.build_missing_error("filters")
        filters = [_read_filter(f"{path}.filters[{place}]", one, depth + 1, count) for place, one in enumerate(inner)]
        return Compound(kind, filters)
    if kind not in COMPARISONS:
        message = f"{kind!r:.40} is not one of {', '.join((*COMPARISONS, *COMPOUNDS))}"
        raise fields.build_value_error("type", message)
    key = fields.read_string("key", most=MOST_NAME_CHARACTERS)
    fields.refuse_rest({"type", "key", "value"}, {})
    if not key:
        raise fields.build_missing_error("key")
    return Comparison(kind, key, _read_filter_value(fields, is_list=kind in LISTS))


def _read_filter_value(fields: Fields, *, is_list: bool) -> Any:
    value = fields.get("value")
    values = value if is_list and isinstance(value, list) else [value]
    if is_list and not isinstance(value, list):
        raise fields.build_type_error("value", "a list", value)
    if len(values) > MOST_FILTER_VALUES:
        raise fields.build_value_error("value", f"{len(values)} values exceed {MOST_FILTER_VALUES}")
    for one in values:
        if not isinstance(one, str | int | float):
            raise fields.build_type_error("value", "a string, a number or a flag", one)
        if isinstance(one, str) and len(one) > MOST_VALUE_CHARACTERS:
            raise fields.build_value_error("value", f"{len(one)} characters exceed {MOST_VALUE_CHARACTERS}")
    return value
