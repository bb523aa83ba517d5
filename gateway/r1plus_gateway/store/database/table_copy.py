"""Rows of tables as records in a stream, and back into tables. Used by `store.copies`.

    record: length (4 bytes) ‖ JSON. `{"table", "columns", "kinds"}` begins a table, a list is a row, and
    `{"rows": {table: count}}` is the end.

The tables describe themselves, so an older schema can be read by a newer program, which migrates it afterwards.
"""

import base64
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.store.copies.sealed_stream import SealedStreamError
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.ledger.repository import OWN_META

LEFT_OUT: Final[Mapping[str, str]] = {
    "data_keys": "in the keys file: a backup that has them revives an erased end user",
    "instances": "of the gateways that run",
    "reservations": "of requests that run: their tokens count when they are settled",
}
"""Tables that no backup has, and why."""
BACKED_UP: Final = tuple(table for table in t.metadata.sorted_tables if table.name not in LEFT_OUT)
BATCH_BYTES: Final = 256 * 1024
"""Of rows that are inserted by one statement, about."""
MOST_BATCH: Final = 500
_READ_ROWS: Final = 50
"""Rows that are in memory at one time. A row with content may have megabytes."""
_LENGTH: Final = struct.Struct(">I")
_PLAIN, _BYTES, _JSON = "plain", "bytes", "json"


def count_rows(connection: Connection, tables: Iterable[sa.Table]) -> int:
    """Return how many rows a copy has."""
    return sum(
        connection.scalar(sa.select(sa.func.count()).select_from(_select(table).subquery())) or 0 for table in tables
    )


def encode_tables(connection: Connection, tables: Sequence[sa.Table]) -> Iterator[bytes]:
    """Yield all rows of these tables as records."""
    counts: dict[str, int] = {}
    for table in tables:
        kinds = [_get_kind(column) for column in table.columns]
        name = str(table.name)  # orjson takes no subclasses as keys
        yield _encode({"table": name, "columns": [str(column.name) for column in table.columns], "kinds": kinds})
        counts[name] = 0
        places = [place for place, kind in enumerate(kinds) if kind == _BYTES]
        for row in connection.execute(_select(table).execution_options(yield_per=_READ_ROWS)):
            values = list(row)
            for place in places:
                if values[place] is not None:
                    values[place] = base64.b64encode(values[place]).decode()
            yield _encode(values)
            counts[name] += 1
    yield _encode({"rows": counts})


class TableRows:
    """Rows of one table, a batch."""

    def __init__(self, head: Mapping[str, Any]) -> None:
        self.name: str = head["table"]
        self._names: list[str] = head["columns"]
        self._kinds: list[str] = head["kinds"]
        self.rows: list[dict[str, Any]] = []
        self.size = 0

    @property
    def is_full(self) -> bool:
        """Whether the batch is to be inserted before another row is added."""
        return self.size >= BATCH_BYTES or len(self.rows) >= MOST_BATCH

    def add(self, values: Sequence[Any], size: int) -> None:
        """Add a row of so many bytes."""
        row = dict(zip(self._names, values, strict=True))
        for name, kind in zip(self._names, self._kinds, strict=True):
            if kind == _BYTES and row[name] is not None:
                row[name] = base64.b64decode(row[name])
        self.rows.append(row)
        self.size += size

    def insert(self, connection: Connection) -> None:
        """Insert the batch."""
        types = {_PLAIN: None, _BYTES: sa.LargeBinary(), _JSON: sa.JSON(none_as_null=True)}
        columns: list[Any] = [sa.column(name, types[kind]) for name, kind in zip(self._names, self._kinds, strict=True)]
        connection.execute(sa.insert(sa.table(self.name, *columns)), self.rows)

    def start_next(self) -> "TableRows":
        """Return an empty batch of the same table."""
        return TableRows({"table": self.name, "columns": self._names, "kinds": self._kinds})


def decode_tables(pieces: Iterator[bytes], take: Callable[[TableRows], None], source: str) -> dict[str, int]:
    """Hand over all rows, a batch at a time; return how many each table had.

    Raises:
        SealedStreamError: what was sealed is no copy of tables.
    """
    counts: dict[str, int] = {}
    batch: TableRows | None = None
    try:
        for text in _split_records(pieces):
            record = orjson.loads(text)
            if isinstance(record, list):
                assert batch is not None
                batch.add(record, len(text))
                counts[batch.name] += 1
            if batch is not None and batch.rows and (batch.is_full or isinstance(record, dict)):
                take(batch)
                batch = batch.start_next()
            if isinstance(record, dict) and "table" in record:
                batch = TableRows(record)
                counts[batch.name] = 0
            elif isinstance(record, dict):
                _require_counts(record["rows"], counts, source)
                return counts
    except (KeyError, TypeError, AssertionError, orjson.JSONDecodeError, struct.error) as error:
        raise SealedStreamError(f"{source}: has other content than tables ({type(error).__name__})") from error
    raise SealedStreamError(f"{source}: has no end")


def _require_counts(counts: Mapping[str, int], found: Mapping[str, int], source: str) -> None:
    if counts != found:
        raise SealedStreamError(f"{source}: has {sum(found.values())} rows, and says {sum(counts.values())}")


def _select(table: sa.Table) -> sa.Select[Any]:
    statement = sa.select(table)
    if table.name == t.meta.name:
        statement = statement.where(t.meta.c.name.not_in([name.value for name in OWN_META]))
    return statement


def _get_kind(column: sa.Column[Any]) -> str:
    if isinstance(column.type, sa.LargeBinary):
        return _BYTES
    return _JSON if isinstance(column.type, sa.JSON) else _PLAIN


def _encode(record: Any) -> bytes:
    text = orjson.dumps(record)
    return _LENGTH.pack(len(text)) + text


def _split_records(pieces: Iterator[bytes]) -> Iterator[bytes]:
    buffer, size = bytearray(), _LENGTH.size
    for piece in pieces:
        buffer += piece
        start = 0
        while len(buffer) - start >= size:
            end = start + size + _LENGTH.unpack_from(buffer, start)[0]
            if len(buffer) < end:
                break
            yield bytes(buffer[start + size : end])
            start = end
        del buffer[:start]
