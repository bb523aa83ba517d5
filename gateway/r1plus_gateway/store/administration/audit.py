"""The audit log: records chained by HMAC, so that a changed, removed, reordered or cut record is found.

A record's MAC covers the MAC of the record before it. The head (number and MAC of the newest record) is stored in
`meta`, written in the same transaction, and every few seconds outside of the database, so that a database which was
put back to an earlier state is found as well. Records that retention removed leave a base: the last of them, sealed by
an HMAC, so that only a gateway can move it. Records hold metadata only: no text of a prompt or an answer.
"""

import hashlib
import hmac
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.store.database import tables as t

HEAD_FILE: Final = "audit-head.json"
RESTORE_ACTION: Final = "restore"
KEY_VERSION: Final = 1
_FIRST_MAC: Final = bytes(32)
_CHUNK: Final = 1000


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """What one request, or one action of an administrator, left behind. `subject` is the request's or the key's id."""

    at: float
    action: str
    caller_kind: str = ""
    caller_id: str = ""
    end_user: str = ""
    subject: str = ""
    model: str = ""
    revision: str = ""
    engine_digest: str = ""
    verdict: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unsettled_tokens: int = 0
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class AuditHead:
    """Number and MAC of the newest record; number 0 has none."""

    seq: int = 0
    mac: bytes = _FIRST_MAC

    def encode(self) -> str:
        """Return the head as JSON."""
        return json.dumps({"seq": self.seq, "mac": self.mac.hex()})


@dataclass(frozen=True, slots=True)
class OutsideHead:
    """A head that is stored outside of the database, and after which restore of a backup (empty: none)."""

    head: AuditHead
    restore_id: str = ""


@dataclass(frozen=True, slots=True)
class RestoreNote:
    """A restore that the log records: what was recorded after the backup was made is not in it."""

    seq: int
    at: float
    restore_id: str
    backup: str
    """Which backup, in words."""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What `verify_chain` found."""

    records: int
    head: AuditHead
    problem: str = ""
    """The first that was found; empty if the log is whole."""
    restores: tuple[RestoreNote, ...] = ()


def decode_head(text: str) -> AuditHead:
    """Return the head that `encode` wrote. Raises ValueError."""
    try:
        document = json.loads(text)
        return AuditHead(int(document["seq"]), bytes.fromhex(document["mac"]))
    except (KeyError, TypeError) as error:
        raise ValueError("not the head of an audit log") from error


def read_head_file(folder: Path) -> OutsideHead | None:
    """Return the head that was stored outside of the database; None if there is none. Raises ValueError."""
    try:
        text = (folder / HEAD_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return OutsideHead(decode_head(text), str(json.loads(text).get("restore", "")))


def write_head_file(folder: Path, outside: OutsideHead) -> None:
    """Replace the stored head at once. Raises OSError."""
    scratch = folder / f"{HEAD_FILE}.new"
    document = json.loads(outside.head.encode())
    if outside.restore_id:
        document["restore"] = outside.restore_id
    with scratch.open("w", encoding="utf-8") as file:
        file.write(json.dumps(document) + "\n")
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(folder / HEAD_FILE)


class AuditChain:
    """Makes rows of records, each chained to the one before."""

    def __init__(self, key: bytes, head: AuditHead) -> None:
        self._key = key
        self.head = head

    def append(self, record: AuditRecord) -> dict[str, Any]:
        """Return the row of the next record."""
        values: dict[str, Any] = {name: getattr(record, name) for name in AuditRecord.__slots__}
        values |= {"seq": self.head.seq + 1, "key_version": KEY_VERSION}
        mac = _compute_mac(self._key, self.head.mac, values)
        self.head = AuditHead(self.head.seq + 1, mac)
        return {**values, "mac": mac}


def seal_base(key: bytes, base: AuditHead) -> str:
    """Return the base of a log, the records up to which were removed, as it is stored."""
    return json.dumps({"seq": base.seq, "mac": base.mac.hex(), "seal": _compute_seal(key, base).hex()})


def open_base(key: bytes, text: str | None) -> AuditHead:
    """Return the stored base; that of a whole log if there is none. Raises ValueError if it was changed."""
    if text is None:
        return AuditHead()
    base = decode_head(text)
    if not hmac.compare_digest(_compute_seal(key, base), bytes.fromhex(str(json.loads(text).get("seal")))):
        raise ValueError("the base of an audit log was changed")
    return base


def verify_chain(connection: Connection, key: bytes, base: AuditHead, *stored_heads: AuditHead) -> AuditReport:
    """Read the log from its base in one snapshot and compare it with every stored head."""
    expected, found_macs = base, {base.seq: base.mac}
    wanted = {head.seq for head in stored_heads}
    restores: list[RestoreNote] = []
    for row in _read_rows(connection):
        problem = _check_row(row, key, expected)
        if problem:
            return AuditReport(expected.seq - base.seq, expected, problem, tuple(restores))
        expected = AuditHead(row["seq"], bytes(row["mac"]))
        if row["action"] == RESTORE_ACTION:
            restores.append(RestoreNote(row["seq"], row["at"], row["subject"], row["outcome"]))
        if expected.seq in wanted:
            found_macs[expected.seq] = expected.mac
    problem = _compare_heads(stored_heads, base, expected, found_macs)
    if problem and restores:
        problem += f"; a restore, which record {restores[-1].seq} says, loses records newer than its backup"
    return AuditReport(expected.seq - base.seq, expected, problem, tuple(restores))


def _compare_heads(heads: Sequence[AuditHead], base: AuditHead, last: AuditHead, found: Mapping[int, bytes]) -> str:
    """Return what is wrong with the log by its stored heads, of which the first is its own."""
    for head in heads:
        if head.seq < base.seq:
            return f"record {head.seq} was removed by retention, with all up to {base.seq}: compare a newer head"
        if head.seq > last.seq:
            return (
                f"records {last.seq + 1} to {head.seq} are missing at the end: the log was cut,"
                " or the database was put back to an earlier state"
            )
        if not hmac.compare_digest(found[head.seq], head.mac):
            return f"record {head.seq} is another one than the stored head says: the log was written again"
    if heads and heads[0].seq != last.seq:
        return f"the stored head is record {heads[0].seq}, and the log goes on to {last.seq}"
    return ""


def _check_row(row: Mapping[str, Any], key: bytes, before: AuditHead) -> str:
    if row["seq"] != before.seq + 1:
        return f"record {before.seq + 1} is missing: the next one is {row['seq']}"
    values = {name: value for name, value in row.items() if name != "mac"}
    if not hmac.compare_digest(_compute_mac(key, before.mac, values), bytes(row["mac"])):
        return f"record {row['seq']} was changed, or moved"
    return ""


def _read_rows(connection: Connection) -> Iterable[Mapping[str, Any]]:
    last = None
    while True:
        statement = sa.select(t.audit).order_by(t.audit.c.seq).limit(_CHUNK)
        if last is not None:
            statement = statement.where(t.audit.c.seq > last)
        rows = [row._asdict() for row in connection.execute(statement)]
        if not rows:
            return
        yield from rows
        last = rows[-1]["seq"]


def _compute_seal(key: bytes, base: AuditHead) -> bytes:
    return hmac.digest(key, b"audit-base\0" + base.encode().encode(), hashlib.sha256)


def _compute_mac(key: bytes, before: bytes, values: Mapping[str, Any]) -> bytes:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hmac.digest(key, before + text.encode(), hashlib.sha256)
