"""A record of the ledger for tests, with any of its fields changed."""

from typing import Any

from evidence.records import Machine, Record

MACHINE = Machine("two-cores", "AMD EPYC", 2, 24, "", "6.1")


def make_record(**fields: Any) -> Record:
    """Return a record of bench-x that passed on two cores, with `fields` of its own."""
    plain: dict[str, Any] = {
        "target": "bench-x",
        "command": "make bench-x",
        "commit": "0" * 40,
        "date": "2026-12-01T10:00+00:00",
        "machine": MACHINE,
        "load_before": 0.1,
        "seconds": 120.0,
        "result": "PASSED",
        "figures": {"ms": 1.5},
    }
    return Record(**{**plain, **fields})
