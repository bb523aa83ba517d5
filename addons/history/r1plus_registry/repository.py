"""Recording of facts: each is an insert that does nothing if its natural key exists. Used inside a unit of work."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from r1plus_contract.history import (
    AlarmFact,
    DeploymentFact,
    EngineFact,
    EvaluationFact,
    Facts,
    RevisionFact,
    RolloutFact,
    SuiteFact,
)
from r1plus_registry import tables as t
from r1plus_registry.errors import DocumentError

Row = Mapping[str, Any]
_REPORT_COLUMNS = (
    "reason", "message", "identity", "suite", "suite_hash", "scorer_version", "threshold", "items", "lost", "allowed",
    "failures", "probes", "sweeps", "lost_at_batch_1", "seconds", "decided_at", "batch", "control", "acknowledged",
)  # fmt: skip


class FactRepository:
    """The facts of one registry, over one transaction's connection."""

    def __init__(self, connection: Connection, clock: Callable[[], float] = time.time) -> None:
        self._connection = connection
        self._now = clock()

    def record(self, facts: Facts) -> dict[str, int]:
        """Record a delivery and return how many facts of each kind were new.

        Deployments come before what refers to them.
        """
        new = {
            "deployments": self._insert_deployments(facts.deployments),
            "engines": sum(self._insert_engine(fact) for fact in facts.engines),
            "suites": sum(self._insert_suite(fact) for fact in facts.suites),
        }
        self._require_deployments(facts)
        new |= {
            "revisions": self._insert_revisions(facts.revisions),
            "evaluations": sum(self._insert_evaluation(fact) for fact in facts.evaluations),
            "rollouts": self._insert_rollouts(facts.rollouts),
            "alarms": self._insert_alarms(facts.alarms),
        }
        if facts.live is not None:
            new["ended"] = self._end_all_but(facts.live)
        return {kind: count for kind, count in new.items() if count}

    def _require_deployments(self, facts: Facts) -> None:
        referenced = {f.deployment for f in facts.revisions} | {f.deployment for f in facts.evaluations}
        referenced |= {f.deployment for f in facts.rollouts} | {f.deployment for f in facts.alarms}
        recorded_uids = set(
            self._connection.scalars(sa.select(t.deployments.c.uid).where(t.deployments.c.uid.in_(referenced)))
        )
        if unknown := sorted(referenced - recorded_uids):
            raise DocumentError(f"facts: deployment {unknown[0]!r} is neither recorded nor in facts.deployments")

    def _insert_deployments(self, facts: Iterable[DeploymentFact]) -> int:
        """Insert deployments. A missing namespace uid is filled in once and never changed."""
        names, c = ("uid", "namespace", "name", "namespace_uid"), t.deployments.c
        rows = [{name: getattr(fact, name) for name in names} for fact in facts]
        new = self._insert(t.deployments, rows)
        for row in rows:
            if row["namespace_uid"]:
                update = sa.update(t.deployments).where(c.uid == row["uid"], c.namespace_uid == "")
                self._connection.execute(update.values(namespace_uid=row["namespace_uid"]))
        return new

    def _end_all_but(self, live: Sequence[str]) -> int:
        """Mark deployments that are gone as ended, and clear the mark of those that exist after all."""
        c, live_uids = t.deployments.c, set(live)
        rows = self._connection.execute(sa.select(c.uid, c.ended_at)).all()
        gone_keys = [{"key": row.uid} for row in rows if row.ended_at is None and row.uid not in live_uids]
        returned_keys = [{"key": row.uid} for row in rows if row.ended_at is not None and row.uid in live_uids]
        for keys, moment in ((gone_keys, self._now), (returned_keys, None)):
            if keys:
                statement = sa.update(t.deployments).where(c.uid == sa.bindparam("key")).values(ended_at=moment)
                self._connection.execute(statement, keys)
        return len(gone_keys)

    def _insert_engine(self, fact: EngineFact) -> int:
        names = ("name", "spec_digest", "family", "tier", "version", "precision", "backend", "suite", "spec")
        new = self._insert(t.engines, [{name: getattr(fact, name) for name in names}])
        c = t.engines.c
        key = self._connection.scalar(sa.select(c.id).where(c.name == fact.name, c.spec_digest == fact.spec_digest))
        provenance = {name: getattr(fact, name) for name in ("image", "sha256", "inherited_from", "claimed_by")}
        self._insert(t.provenance, [{"engine_id": key, **provenance}])
        return new

    def _insert_suite(self, fact: SuiteFact) -> int:
        names = ("namespace", "name", "version", "sha256", "scorer_version", "reference_engine", "signer")
        new = self._insert(t.suites, [{name: getattr(fact, name) for name in names}])
        if new:
            c = t.suites.c
            key = self._connection.scalar(sa.select(c.id).where(c.namespace == fact.namespace, c.sha256 == fact.sha256))
            items = [{"suite_id": key, "item": item.id, "stratum": item.stratum} for item in fact.items]
            self._insert(t.suite_items, items, at=False)
        return new

    def _insert_revisions(self, facts: Iterable[RevisionFact]) -> int:
        names = ("name", "number", "engine", "engine_digest", "batch", "context", "identity_digest", "identity")
        return self._insert(
            t.revisions,
            [
                {"deployment_uid": f.deployment, "monitor_image": f.monitor_image, **{n: getattr(f, n) for n in names}}
                for f in facts
            ],
        )

    def _insert_evaluation(self, fact: EvaluationFact) -> int:
        report = fact.report
        row: dict[str, Any] = {name: getattr(report, name) for name in _REPORT_COLUMNS}
        row |= {"deployment_uid": fact.deployment, "revision": fact.revision, "verdict": report.verdict.value}
        key = self._insert_one(t.evaluations, row)
        if key is None:
            return 0
        strata = [
            {"evaluation_id": key, "name": s.name, "items": s.items, "lost": s.lost, "allowed": s.allowed}
            for s in report.strata
        ]
        self._insert(t.evaluation_strata, strata, at=False)
        lost_items = [{"evaluation_id": key, "item": item, "correct": False} for item in report.lost_items]
        self._insert(t.evaluation_items, lost_items, at=False)
        return 1

    def _insert_rollouts(self, facts: Iterable[RolloutFact]) -> int:
        rows = [
            {
                "deployment_uid": f.deployment,
                "revision": f.revision,
                "event": f.event.value,
                "at": f.at,
                "to": f.to,
                "cause": f.cause,
                "text": f.text,
            }
            for f in facts
        ]
        return self._insert(t.rollouts, rows)

    def _insert_alarms(self, facts: Iterable[AlarmFact]) -> int:
        names = ("revision", "source", "reason", "since", "before", "now", "text")
        rows = [
            {"deployment_uid": f.deployment, "lost": list(f.lost), **{n: getattr(f, n) for n in names}} for f in facts
        ]
        return self._insert(t.alarms, rows)

    def _insert(self, table: sa.Table, rows: Sequence[Row], *, at: bool = True) -> int:
        """Insert unknown rows and return their number."""
        return sum(self._insert_one(table, row, at=at) is not None for row in rows)

    def _insert_one(self, table: sa.Table, row: Row, *, at: bool = True) -> Any:
        """Insert the row and return its key.

        Return None if it exists; then only the time of its last report changes.
        """
        values = {**row, "recorded_at": self._now} if at else dict(row)
        report_time = {"told_at": self._now} if "told_at" in table.c else {}
        dialect = sqlite if self._connection.dialect.name == "sqlite" else postgresql
        statement = dialect.insert(table).values(values | report_time).on_conflict_do_nothing()
        new = self._connection.execute(statement.returning(*table.primary_key.columns)).scalar()
        if new is None and report_time:
            (natural_key,) = (
                constraint for constraint in table.constraints if isinstance(constraint, sa.UniqueConstraint)
            )
            conditions = (column == row[column.name] for column in natural_key.columns)
            self._connection.execute(sa.update(table).where(*conditions).values(report_time))
        return new
