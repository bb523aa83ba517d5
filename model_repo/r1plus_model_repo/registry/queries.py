"""Reads facts back, as the contract's types. Who may see what is decided before, by the service."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
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
from r1plus_contract.verdict import GateReport, StratumFigures, Verdict
from r1plus_model_repo.registry import tables as t

MOST_ITEMS: Final = 20_000
"""Of all evaluations in one answer: two megabytes, ten times that while it is made."""
Rows = Sequence[Mapping[str, Any]]
_REPORT = tuple(f.name for f in fields(GateReport) if f.name not in ("verdict", "strata", "lost_items"))


class Reader:
    """Questions over one transaction's connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def histories(self, namespace: str, name: str, *, ended: bool, of: str | None = None) -> tuple[History, ...]:
        """All deployments of this name, the newest first; with `ended=False` only one that is there.

        `of`: the uid of the namespace whose alone are told; None: of all namespaces of that name.
        """
        c = t.deployments.c
        asked = sa.select(t.deployments).where(c.namespace == namespace, c.name == name, *_within(of))
        if not ended:
            asked = asked.where(c.ended_at.is_(None))
        rows = self._rows(asked.order_by(c.ended_at.is_not(None), c.recorded_at.desc()).limit(MOST_LISTED))
        return tuple(self._history(row) for row in rows)

    def evaluations(
        self,
        namespace: str | None,
        name: str | None,
        *,
        ended: bool,
        items: bool,
        most: int = MOST_LISTED,
        of: str | None = None,
    ) -> tuple[Evaluation, ...]:
        """The newest first; of every namespace or deployment where None is given.

        At most `most`, and with items no more than have `MOST_ITEMS` together, but one in any case.
        """
        d, e, r = t.deployments, t.evaluations, t.revisions
        joined = e.join(d, e.c.deployment_uid == d.c.uid).outerjoin(
            r, sa.and_(r.c.deployment_uid == e.c.deployment_uid, r.c.name == e.c.revision)
        )
        names = (d.c.namespace, d.c.name.label("deployment"), r.c.engine)
        asked = sa.select(e, *names).select_from(joined).order_by(e.c.decided_at.desc(), e.c.id.desc()).limit(most)
        asked = asked.where(*_within(of))
        for wanted, column in ((namespace, d.c.namespace), (name, d.c.name)):
            if wanted is not None:
                asked = asked.where(column == wanted)
        if not ended:
            asked = asked.where(d.c.ended_at.is_(None))
        rows = self._rows(asked)
        found: list[Evaluation] = []
        room = MOST_ITEMS
        for row, report in zip(rows, self._reports(rows), strict=True):
            listed = self._items(row["namespace"], report) if items else ()
            room -= len(listed)
            if found and room < 0:
                break
            where = (row["namespace"], row["deployment"], row["revision"], row["engine"] or "")
            found.append(Evaluation(*where, report, listed))
        return tuple(found)

    def engines(self) -> tuple[RecordedEngine, ...]:
        """Every engine that was ever on offer."""
        e, p = t.engines, t.provenance
        asked = sa.select(e, p.c.image, p.c.sha256, p.c.inherited_from, p.c.claimed_by).select_from(
            e.join(p, p.c.engine_id == e.c.id)
        )
        counts = self._engine_counts()
        found = []
        for row in self._rows(asked.order_by(e.c.name, e.c.recorded_at.desc(), e.c.id.desc())):
            fact = _built(EngineFact, row)
            every, passed = counts.get((fact.name, fact.sha256), (0, 0))
            found.append(RecordedEngine(fact, _rfc3339(row["recorded_at"]), every, passed))
        return tuple(found)

    def _engine_counts(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(engine, its digest) -> gates that it went through, and passed."""
        e, r = t.evaluations, t.revisions
        joined = e.join(r, sa.and_(r.c.deployment_uid == e.c.deployment_uid, r.c.name == e.c.revision))
        passed = sa.func.sum(sa.case((e.c.verdict == Verdict.PASS.value, 1), else_=0)).label("passed")
        asked = sa.select(r.c.engine, r.c.engine_digest, sa.func.count().label("every"), passed).select_from(joined)
        rows = self._rows(asked.group_by(r.c.engine, r.c.engine_digest))
        return {(row["engine"], row["engine_digest"]): (int(row["every"]), int(row["passed"])) for row in rows}

    def _history(self, row: Mapping[str, Any]) -> History:
        uid = row["uid"]
        evaluations = self._newest(t.evaluations, uid, t.evaluations.c.decided_at)
        reports = self._reports(evaluations)
        return History(
            deployment=_built(DeploymentFact, row),
            ended=row["ended_at"] is not None,
            revisions=tuple(_built(RevisionFact, one) for one in self._newest(t.revisions, uid, t.revisions.c.number)),
            evaluations=tuple(
                EvaluationFact(uid, one["revision"], report) for one, report in zip(evaluations, reports, strict=True)
            ),
            rollouts=tuple(
                replace(_built(RolloutFact, one), event=RolloutEvent(one["event"]))
                for one in self._newest(t.rollouts, uid, t.rollouts.c.at)
            ),
            alarms=tuple(
                replace(_built(AlarmFact, one), lost=tuple(one["lost"]))
                for one in self._newest(t.alarms, uid, t.alarms.c.since)
            ),
        )

    def _newest(self, table: sa.Table, uid: str, moment: sa.Column[Any]) -> Rows:
        """A deployment's newest rows, oldest first."""
        asked = sa.select(table).where(table.c.deployment_uid == uid)
        rows = self._rows(asked.order_by(moment.desc(), table.c.id.desc()).limit(MOST_LISTED))
        return rows[::-1]

    def _reports(self, rows: Rows) -> tuple[GateReport, ...]:
        """Of rows of `evaluations`."""
        keys = [row["id"] for row in rows]
        strata: dict[int, list[StratumFigures]] = {key: [] for key in keys}
        lost: dict[int, list[str]] = {key: [] for key in keys}
        s, i = t.evaluation_strata, t.evaluation_items
        for one in self._rows(sa.select(s).where(s.c.evaluation_id.in_(keys)).order_by(s.c.name)):
            strata[one["evaluation_id"]].append(_built(StratumFigures, one))
        wrong = sa.select(i).where(i.c.evaluation_id.in_(keys), sa.not_(i.c.correct))
        for one in self._rows(wrong.order_by(i.c.item)):
            lost[one["evaluation_id"]].append(one["item"])
        return tuple(
            GateReport(
                verdict=Verdict(row["verdict"]),
                strata=tuple(strata[row["id"]]),
                lost_items=tuple(lost[row["id"]]),
                **{name: row[name] for name in _REPORT},
            )
            for row in rows
        )

    def _items(self, namespace: str, report: GateReport) -> tuple[ItemResult, ...]:
        """Item by item: the suite's, less those that were lost; where not all are named, the rest is unknown."""
        s, i = t.suites, t.suite_items
        asked = sa.select(i.c.item, i.c.stratum).select_from(i.join(s, i.c.suite_id == s.c.id))
        # The tenant's own suite before a shipped one, as the operator takes them.
        first = sa.select(s.c.id).where(s.c.sha256 == report.suite_hash, s.c.namespace.in_((namespace, "")))
        rows = self._rows(
            asked.where(s.c.id == first.order_by(s.c.namespace.desc()).limit(1).scalar_subquery()).order_by(i.c.item)
        )
        lost, named = set(report.lost_items), len(set(report.lost_items)) == report.lost
        known = {row["item"]: row["stratum"] for row in rows}
        right: bool | None = True if named else None
        found = [ItemResult(item, stratum, False if item in lost else right) for item, stratum in known.items()]
        return (*found, *(ItemResult(item, "", False) for item in sorted(lost - known.keys())))

    def _rows(self, statement: sa.Select[Any]) -> Rows:
        return [dict(row) for row in self._connection.execute(statement).mappings()]


def _within(namespace_uid: str | None) -> tuple[sa.ColumnElement[bool], ...]:
    """Of that namespace and of no namesake; one of which that is not known is nobody's."""
    column = t.deployments.c.namespace_uid
    return () if namespace_uid is None else (column == namespace_uid, column != "")


def _built(kind: Any, row: Mapping[str, Any]) -> Any:
    """A dataclass from the columns that bear its fields' names."""
    names = [field.name for field in fields(kind)]
    values = {name: row[name] for name in names if name in row}
    if "deployment" in names:
        values["deployment"] = row["deployment_uid"]
    return kind(**values)


def _rfc3339(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
