"""Records facts: each an insert that does nothing where its natural key is known. Used inside a unit of work."""

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
from r1plus_model_repo.registry import tables as t
from r1plus_model_repo.registry.errors import DocumentError

Row = Mapping[str, Any]
_OF_A_REPORT = (
    "reason", "message", "identity", "suite", "suite_hash", "scorer_version", "threshold", "items", "lost", "allowed",
    "failures", "probes", "sweeps", "lost_at_batch_1", "seconds", "decided_at", "batch", "control", "acknowledged",
)  # fmt: skip


class FactRepository:
    """The facts of one registry, over one transaction's connection."""

    def __init__(self, connection: Connection, clock: Callable[[], float] = time.time) -> None:
        self._connection = connection
        self._now = clock()

    def record(self, facts: Facts) -> dict[str, int]:
        """All of a delivery; how many facts of each kind were new. What refers to a deployment comes after it."""
        new = {
            "deployments": self._deployments(facts.deployments),
            "engines": sum(self._engine(fact) for fact in facts.engines),
            "suites": sum(self._suite(fact) for fact in facts.suites),
        }
        self._require_deployments(facts)
        new |= {
            "revisions": self._revisions(facts.revisions),
            "evaluations": sum(self._evaluation(fact) for fact in facts.evaluations),
            "rollouts": self._rollouts(facts.rollouts),
            "alarms": self._alarms(facts.alarms),
        }
        if facts.live is not None:
            new["ended"] = self._end_all_but(facts.live)
        return {kind: count for kind, count in new.items() if count}

    def _require_deployments(self, facts: Facts) -> None:
        named = {f.deployment for f in facts.revisions} | {f.deployment for f in facts.evaluations}
        named |= {f.deployment for f in facts.rollouts} | {f.deployment for f in facts.alarms}
        known = set(self._connection.scalars(sa.select(t.deployments.c.uid).where(t.deployments.c.uid.in_(named))))
        if strange := sorted(named - known):
            raise DocumentError(f"facts: deployment {strange[0]!r} is neither known nor among facts.deployments")

    def _deployments(self, facts: Iterable[DeploymentFact]) -> int:
        """What was not known of one, of which namespace it is, is filled in once, and never changed."""
        names, c = ("uid", "namespace", "name", "namespace_uid"), t.deployments.c
        rows = [{name: getattr(fact, name) for name in names} for fact in facts]
        new = self._insert(t.deployments, rows)
        for row in rows:
            if row["namespace_uid"]:
                unknown = sa.update(t.deployments).where(c.uid == row["uid"], c.namespace_uid == "")
                self._connection.execute(unknown.values(namespace_uid=row["namespace_uid"]))
        return new

    def _end_all_but(self, live: Sequence[str]) -> int:
        """Those that are gone have ended now; one that was missed and is there after all has not."""
        c, there = t.deployments.c, set(live)
        rows = self._connection.execute(sa.select(c.uid, c.ended_at)).all()
        gone = [{"key": row.uid} for row in rows if row.ended_at is None and row.uid not in there]
        back = [{"key": row.uid} for row in rows if row.ended_at is not None and row.uid in there]
        for keys, moment in ((gone, self._now), (back, None)):
            if keys:
                statement = sa.update(t.deployments).where(c.uid == sa.bindparam("key")).values(ended_at=moment)
                self._connection.execute(statement, keys)
        return len(gone)

    def _engine(self, fact: EngineFact) -> int:
        names = ("name", "spec_digest", "family", "tier", "version", "precision", "backend", "suite", "spec")
        new = self._insert(t.engines, [{name: getattr(fact, name) for name in names}])
        c = t.engines.c
        key = self._connection.scalar(sa.select(c.id).where(c.name == fact.name, c.spec_digest == fact.spec_digest))
        came = {name: getattr(fact, name) for name in ("image", "sha256", "inherited_from", "claimed_by")}
        self._insert(t.provenance, [{"engine_id": key, **came}])
        return new

    def _suite(self, fact: SuiteFact) -> int:
        names = ("namespace", "name", "version", "sha256", "scorer_version", "reference_engine", "signer")
        new = self._insert(t.suites, [{name: getattr(fact, name) for name in names}])
        if new:
            c = t.suites.c
            key = self._connection.scalar(sa.select(c.id).where(c.namespace == fact.namespace, c.sha256 == fact.sha256))
            items = [{"suite_id": key, "item": item.id, "stratum": item.stratum} for item in fact.items]
            self._insert(t.suite_items, items, at=False)
        return new

    def _revisions(self, facts: Iterable[RevisionFact]) -> int:
        names = ("name", "number", "engine", "engine_digest", "batch", "context", "identity_digest", "identity")
        return self._insert(
            t.revisions,
            [
                {"deployment_uid": f.deployment, "monitor_image": f.monitor_image, **{n: getattr(f, n) for n in names}}
                for f in facts
            ],
        )

    def _evaluation(self, fact: EvaluationFact) -> int:
        report = fact.report
        row: dict[str, Any] = {name: getattr(report, name) for name in _OF_A_REPORT}
        row |= {"deployment_uid": fact.deployment, "revision": fact.revision, "verdict": report.verdict.value}
        key = self._insert_one(t.evaluations, row)
        if key is None:
            return 0
        strata = [
            {"evaluation_id": key, "name": s.name, "items": s.items, "lost": s.lost, "allowed": s.allowed}
            for s in report.strata
        ]
        self._insert(t.evaluation_strata, strata, at=False)
        lost = [{"evaluation_id": key, "item": item, "correct": False} for item in report.lost_items]
        self._insert(t.evaluation_items, lost, at=False)
        return 1

    def _rollouts(self, facts: Iterable[RolloutFact]) -> int:
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

    def _alarms(self, facts: Iterable[AlarmFact]) -> int:
        names = ("revision", "source", "reason", "since", "before", "now", "text")
        rows = [
            {"deployment_uid": f.deployment, "lost": list(f.lost), **{n: getattr(f, n) for n in names}} for f in facts
        ]
        return self._insert(t.alarms, rows)

    def _insert(self, table: sa.Table, rows: Sequence[Row], *, at: bool = True) -> int:
        """Insert what is not known; how many rows that were."""
        return sum(self._insert_one(table, row, at=at) is not None for row in rows)

    def _insert_one(self, table: sa.Table, row: Row, *, at: bool = True) -> Any:
        """The new row's key, or None where it was known: then it is noted that it was told again."""
        values = {**row, "recorded_at": self._now} if at else dict(row)
        stamp = {"told_at": self._now} if "told_at" in table.c else {}
        dialect = sqlite if self._connection.dialect.name == "sqlite" else postgresql
        statement = dialect.insert(table).values(values | stamp).on_conflict_do_nothing()
        new = self._connection.execute(statement.returning(*table.primary_key.columns)).scalar()
        if new is None and stamp:
            (natural,) = (found for found in table.constraints if isinstance(found, sa.UniqueConstraint))
            same = (column == row[column.name] for column in natural.columns)
            self._connection.execute(sa.update(table).where(*same).values(stamp))
        return new
