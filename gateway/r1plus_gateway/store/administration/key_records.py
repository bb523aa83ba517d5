"""Records of API keys in the database: found by a bound id, made, changed and listed. Used by `admin` and `tenant`."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.access.api_keys import SCOPES, KeyRecord
from r1plus_gateway.access.caller import Limits
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.ledger.repository import MOST_TEXT, check_text

LIMITS: Final = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "budget_tokens")
MOST_LIMIT: Final = 2**53
MOST_MODELS: Final = 256
MODEL_NAME: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
"""Of an R1PlusDeployment. A preset is no model of its own."""
_SELECT = sa.select(t.api_keys).where(t.api_keys.c.id == sa.bindparam("wanted"))


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What an administrator asks for. `models` None is all of the tenant's; `expires_at` is in ledger time."""

    name: str
    models: frozenset[str] | None = None
    scopes: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What an administrator changes of a key. What is not named stays; its name, id, secret and usage always do."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    """`models`, `scopes`, `expires_at`: their new values, as in `KeySpec`."""
    limits: Mapping[str, int | None] = field(default_factory=dict)
    """Names of `LIMITS` -> their new values; None is no limit."""


def change_record(record: KeyRecord, change: KeyChange, now: float) -> KeyRecord:
    """Return a changed record. Raises ValueError that names every new value that is wrong."""
    # Only what is new is checked: an end that has passed may stay.
    check_spec(KeySpec(record.name, **change.fields, limits=Limits(**change.limits)), now)
    return replace(record, **change.fields, limits=replace(record.limits, **change.limits))


def describe_change(before: KeyRecord, after: KeyRecord) -> str:
    """Return what changed, for the audit log: `budget_tokens 1000 -> 2000; models all -> credit`."""
    values = [(name, _describe_value(before, name), _describe_value(after, name)) for name in _CHANGEABLE]
    return "; ".join(f"{name} {old} -> {new}" for name, old, new in values if old != new)[:MOST_TEXT]


_CHANGEABLE: Final = (*LIMITS, "expires_at", "scopes", "models")


def _describe_value(record: KeyRecord, name: str) -> str:
    value = getattr(record.limits if name in LIMITS else record, name)
    if name == "models" and value is None:
        return "all"
    if isinstance(value, frozenset):
        return ",".join(sorted(value)) or "none"
    return "none" if value is None else f"{value:.0f}"


def check_spec(spec: KeySpec, now: float) -> None:
    """Raise ValueError that names every field that is wrong, its value and what is right."""
    problems = []
    try:
        check_text("name", spec.name)
    except ValueError as error:
        problems.append(str(error))
    if unknown := sorted(spec.scopes - SCOPES):
        problems.append(f"scopes: {unknown[0]!r:.40} is unknown; known are {', '.join(sorted(SCOPES))}")
    if spec.models is not None and (not spec.models or len(spec.models) > MOST_MODELS):
        problems.append(f"models: has {len(spec.models)} entries; give 1 to {MOST_MODELS}, or none for all")
    for model in spec.models or ():
        if not re.fullmatch(MODEL_NAME, model):
            problems.append(f"models: {model!r:.40} is not the name of an R1PlusDeployment")
    for name in LIMITS:
        value = getattr(spec.limits, name)
        if value is not None and not 0 <= value <= MOST_LIMIT:
            problems.append(f"limits.{name}: {value} is not between 0 and 2^53")
    if spec.expires_at is not None and not now < spec.expires_at <= now + 100 * 366 * 86400:
        problems.append("expires_at: is not a time within the next 100 years")
    if problems:
        raise ValueError("; ".join(problems))


def find_record(connection: Connection, key_id: str) -> KeyRecord | None:
    """Return the record of an id."""
    row = connection.execute(_SELECT, {"wanted": key_id}).one_or_none()
    return None if row is None else _make_record(row)


def list_records(connection: Connection) -> list[KeyRecord]:
    """Return all records, the newest first."""
    rows = connection.execute(sa.select(t.api_keys).order_by(t.api_keys.c.created_at.desc(), t.api_keys.c.id))
    return [_make_record(row) for row in rows]


def list_revoked(connection: Connection, key_ids: Collection[str]) -> list[str]:
    """Return which of these keys are revoked. An id may also be of another caller than a key."""
    c = t.api_keys.c
    return list(connection.scalars(sa.select(c.id).where(c.id.in_(key_ids), c.revoked_at.is_not(None))))


def insert_record(connection: Connection, record: KeyRecord) -> None:
    """Store a new record."""
    connection.execute(sa.insert(t.api_keys).values(_make_row(record)))


def replace_record(connection: Connection, record: KeyRecord) -> None:
    """Store a changed record."""
    connection.execute(sa.update(t.api_keys).where(t.api_keys.c.id == record.id).values(_make_row(record)))


def _make_row(record: KeyRecord) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": record.id,
        "name": record.name,
        "secret_mac": record.secret_mac,
        "previous_mac": record.previous_mac,
        "previous_expires_at": record.previous_expires_at,
        "models": _sort(record.models),
        "scopes": _sort(record.scopes),
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
    }
    return row | {name: getattr(record.limits, name) for name in LIMITS}


def _make_record(row: Any) -> KeyRecord:
    return KeyRecord(
        id=row.id,
        name=row.name,
        secret_mac=bytes(row.secret_mac),
        previous_mac=None if row.previous_mac is None else bytes(row.previous_mac),
        previous_expires_at=row.previous_expires_at,
        models=None if row.models is None else frozenset(row.models),
        scopes=frozenset(row.scopes),
        limits=Limits(**{name: getattr(row, name) for name in LIMITS}),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )


def _sort(names: frozenset[str] | None) -> Sequence[str] | None:
    return None if names is None else sorted(names)
