"""Queries that return facts as the contract's types. The service decides first who may see what."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_contract.history import (
    MOST_LISTED,
    AlarmFact,
    DeploymentFact,
    EngineFact,
    Evaluation,
    EvaluationFact,
    History,
    ItemResult,
    RecordedEngine,
    RevisionFact,
    RolloutEvent,
    RolloutFact,
)
from r1plus_contract.timestamps import format_timestamp
from r1plus_contract.verdict import GateReport, StratumFigures, Verdict
from r1plus_registry import tables as t

MOST_ITEMS: Final = 20_000
"""Limit for all evaluations in one response: two megabytes, ten times that while it is built."""
Rows = Sequence[Mapping[str, Any]]
_REPORT_COLUMNS = tuple(f.name for f in fields(GateReport) if f.name not in ("verdict", "strata", "lost_items"))


class Reader:
    """Queries over one transaction's connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read_histories(
        self, namespace: str, name: str, *, include_ended: bool, namespace_uid: str | None = None
    ) -> tuple[History, ...]:
        """Return all deployments of this name, newest first; with `include_ended=False` only the existing one.

        `namespace_uid` restricts the result to one namespace; None: all namespaces of that name.
        """
        c = t.deployments.c
        query = sa.select(t.deployments).where(
            c.namespace == namespace, c.name == name, *_build_namespace_conditions(namespace_uid)
        )
        if not include_ended:
            query = query.where(c.ended_at.is_(None))
        rows = self._fetch_rows(query.order_by(c.ended_at.is_not(None), c.recorded_at.desc()).limit(MOST_LISTED))
        return tuple(self._read_history(row) for row in rows)

    def read_evaluations(
        self,
        namespace: str | None,
        name: str | None,
        *,
        include_ended: bool,
        items: bool,
        limit: int = MOST_LISTED,
        namespace_uid: str | None = None,
    ) -> tuple[Evaluation, ...]:
        """Return evaluations, newest first; None means every namespace or deployment.

        At most `limit`; with items at most `MOST_ITEMS` items together, but at least one evaluation.
        """
        d, e, r = t.deployments, t.evaluations, t.revisions
        tables = e.join(d, e.c.deployment_uid == d.c.uid).outerjoin(
            r, sa.and_(r.c.deployment_uid == e.c.deployment_uid, r.c.name == e.c.revision)
        )
        names = (d.c.namespace, d.c.name.label("deployment"), r.c.engine)
        query = sa.select(e, *names).select_from(tables).order_by(e.c.decided_at.desc(), e.c.id.desc()).limit(limit)
        query = query.where(*_build_namespace_conditions(namespace_uid))
        for value, column in ((namespace, d.c.namespace), (name, d.c.name)):
            if value is not None:
                query = query.where(column == value)
        if not include_ended:
            query = query.where(d.c.ended_at.is_(None))
        rows = self._fetch_rows(query)
        evaluations: list[Evaluation] = []
        room = MOST_ITEMS
        for row, report in zip(rows, self._read_reports(rows), strict=True):
            item_results = self._read_items(row["namespace"], report) if items else ()
            room -= len(item_results)
            if evaluations and room < 0:
                break
            where = (row["namespace"], row["deployment"], row["revision"], row["engine"] or "")
            evaluations.append(Evaluation(*where, report, item_results))
        return tuple(evaluations)

    def read_engines(self) -> tuple[RecordedEngine, ...]:
        """Return every engine that was ever in the catalog."""
        e, p = t.engines, t.provenance
        query = sa.select(e, p.c.image, p.c.sha256, p.c.inherited_from, p.c.claimed_by).select_from(
            e.join(p, p.c.engine_id == e.c.id)
        )
        counts = self._count_engine_gates()
        engines = []
        for row in self._fetch_rows(query.order_by(e.c.name, e.c.recorded_at.desc(), e.c.id.desc())):
            fact = _build_fact(EngineFact, row)
            gate_count, pass_count = counts.get((fact.name, fact.sha256), (0, 0))
            engines.append(RecordedEngine(fact, format_timestamp(row["recorded_at"]), gate_count, pass_count))
        return tuple(engines)

    def _count_engine_gates(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return (engine, digest) -> number of its gates, and of those passed."""
        e, r = t.evaluations, t.revisions
        tables = e.join(r, sa.and_(r.c.deployment_uid == e.c.deployment_uid, r.c.name == e.c.revision))
        pass_count = sa.func.sum(sa.case((e.c.verdict == Verdict.PASS.value, 1), else_=0)).label("passed")
        query = sa.select(r.c.engine, r.c.engine_digest, sa.func.count().label("every"), pass_count).select_from(tables)
        rows = self._fetch_rows(query.group_by(r.c.engine, r.c.engine_digest))
        return {(row["engine"], row["engine_digest"]): (int(row["every"]), int(row["passed"])) for row in rows}

    def _read_history(self, row: Mapping[str, Any]) -> History:
        uid = row["uid"]
        evaluations = self._read_newest(t.evaluations, uid, t.evaluations.c.decided_at)
        reports = self._read_reports(evaluations)
        return History(
            deployment=_build_fact(DeploymentFact, row),
            ended=row["ended_at"] is not None,
            revisions=tuple(
                _build_fact(RevisionFact, one) for one in self._read_newest(t.revisions, uid, t.revisions.c.number)
            ),
            evaluations=tuple(
                EvaluationFact(uid, one["revision"], report) for one, report in zip(evaluations, reports, strict=True)
            ),
            rollouts=tuple(
                replace(_build_fact(RolloutFact, one), event=RolloutEvent(one["event"]))
                for one in self._read_newest(t.rollouts, uid, t.rollouts.c.at)
            ),
            alarms=tuple(
                replace(_build_fact(AlarmFact, one), lost=tuple(one["lost"]))
                for one in self._read_newest(t.alarms, uid, t.alarms.c.since)
            ),
        )

    def _read_newest(self, table: sa.Table, uid: str, moment: sa.Column[Any]) -> Rows:
        """Return the newest rows of a deployment, oldest first."""
        query = sa.select(table).where(table.c.deployment_uid == uid)
        rows = self._fetch_rows(query.order_by(moment.desc(), table.c.id.desc()).limit(MOST_LISTED))
        return rows[::-1]

    def _read_reports(self, rows: Rows) -> tuple[GateReport, ...]:
        """Return the reports of rows of `evaluations`."""
        keys = [row["id"] for row in rows]
        strata: dict[int, list[StratumFigures]] = {key: [] for key in keys}
        lost: dict[int, list[str]] = {key: [] for key in keys}
        s, i = t.evaluation_strata, t.evaluation_items
        for one in self._fetch_rows(sa.select(s).where(s.c.evaluation_id.in_(keys)).order_by(s.c.name)):
            strata[one["evaluation_id"]].append(_build_fact(StratumFigures, one))
        lost_rows = sa.select(i).where(i.c.evaluation_id.in_(keys), sa.not_(i.c.correct))
        for one in self._fetch_rows(lost_rows.order_by(i.c.item)):
            lost[one["evaluation_id"]].append(one["item"])
        return tuple(
            GateReport(
                verdict=Verdict(row["verdict"]),
                strata=tuple(strata[row["id"]]),
                lost_items=tuple(lost[row["id"]]),
                **{name: row[name] for name in _REPORT_COLUMNS},
            )
            for row in rows
        )

    def _read_items(self, namespace: str, report: GateReport) -> tuple[ItemResult, ...]:
        """Return the results per item of the suite.

        If the report does not name all lost items, the others are unknown.
        """
        s, i = t.suites, t.suite_items
        query = sa.select(i.c.item, i.c.stratum).select_from(i.join(s, i.c.suite_id == s.c.id))
        # The tenant's own suite before a shipped one, like the operator.
        first = sa.select(s.c.id).where(s.c.sha256 == report.suite_hash, s.c.namespace.in_((namespace, "")))
        rows = self._fetch_rows(
            query.where(s.c.id == first.order_by(s.c.namespace.desc()).limit(1).scalar_subquery()).order_by(i.c.item)
        )
        lost, are_all_named = set(report.lost_items), len(set(report.lost_items)) == report.lost
        stratum_of_item = {row["item"]: row["stratum"] for row in rows}
        default_result: bool | None = True if are_all_named else None
        results = [
            ItemResult(item, stratum, False if item in lost else default_result)
            for item, stratum in stratum_of_item.items()
        ]
        return (*results, *(ItemResult(item, "", False) for item in sorted(lost - stratum_of_item.keys())))

    def _fetch_rows(self, statement: sa.Select[Any]) -> Rows:
        return [dict(row) for row in self._connection.execute(statement).mappings()]


def _build_namespace_conditions(namespace_uid: str | None) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions for this namespace. Rows without a namespace uid match none."""
    column = t.deployments.c.namespace_uid
    return () if namespace_uid is None else (column == namespace_uid, column != "")


def _build_fact(kind: Any, row: Mapping[str, Any]) -> Any:
    """Build a dataclass from the columns with its field names."""
    names = [field.name for field in fields(kind)]
    values = {name: row[name] for name in names if name in row}
    if "deployment" in names:
        values["deployment"] = row["deployment_uid"]
    return kind(**values)
