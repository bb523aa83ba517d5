"""The tables, as the newest migration leaves them; `migrations/` makes them, a test compares the two.

Every fact has a unique constraint on its natural key (`r1plus_contract.history`), so that recording is an insert that
does nothing where the fact is known. Times are seconds since the epoch or RFC 3339 text, as the facts bear them.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_key",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
"""So that a later migration can name what an earlier one made."""
metadata = MetaData(naming_convention=NAMING)
# SQLite numbers rows by itself only where the type is exactly INTEGER.
_ID = BigInteger().with_variant(Integer, "sqlite")


def _key() -> Column[int]:
    return Column("id", _ID, primary_key=True, autoincrement=True)


def _recorded() -> Column[float]:
    return Column("recorded_at", Double, nullable=False)


def _told_at() -> Column[float]:
    """When the operator told it last: what the cluster still shows is told every hour."""
    return Column("told_at", Double, nullable=False, server_default="0")


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _deployment() -> Column[str]:
    return Column("deployment_uid", Text, ForeignKey("deployments.uid", ondelete="CASCADE"), nullable=False)


deployments = Table(
    "deployments",
    metadata,
    Column("uid", Text, primary_key=True),
    _text("namespace"),
    _text("name"),
    _recorded(),
    Column("ended_at", Double),
    Column("namespace_uid", Text, nullable=False, server_default=""),
    Index("ix_deployments_namespace_name", "namespace", "name"),
)

engines = Table(
    "engines",
    metadata,
    _key(),
    _text("name"),
    _text("spec_digest"),
    _text("family"),
    _text("tier"),
    _text("version"),
    _text("precision"),
    _text("backend"),
    _text("suite"),
    Column("spec", JSON, nullable=False),
    _recorded(),
    UniqueConstraint("name", "spec_digest"),
)

provenance = Table(
    "provenance",
    metadata,
    _key(),
    Column("engine_id", _ID, ForeignKey("engines.id", ondelete="CASCADE"), nullable=False),
    _text("image"),
    _text("sha256"),
    _text("inherited_from"),
    _text("claimed_by"),
    _recorded(),
    UniqueConstraint("engine_id", "image", "sha256"),
)
"""Where an engine's files came from, and on whose word its reference stands."""

suites = Table(
    "suites",
    metadata,
    _key(),
    _text("namespace"),
    _text("name"),
    _text("version"),
    _text("sha256"),
    _text("scorer_version"),
    _text("reference_engine"),
    _text("signer"),
    _recorded(),
    _told_at(),
    UniqueConstraint("namespace", "sha256"),
)

suite_items = Table(
    "suite_items",
    metadata,
    Column("suite_id", _ID, ForeignKey("suites.id", ondelete="CASCADE"), primary_key=True),
    Column("item", Text, primary_key=True),
    _text("stratum"),
)

revisions = Table(
    "revisions",
    metadata,
    _key(),
    _deployment(),
    _text("name"),
    Column("number", BigInteger, nullable=False),
    _text("engine"),
    _text("engine_digest"),
    Column("batch", BigInteger, nullable=False),
    Column("context", BigInteger, nullable=False),
    _text("identity_digest"),
    Column("identity", JSON, nullable=False),
    _text("monitor_image"),
    _recorded(),
    _told_at(),
    UniqueConstraint("deployment_uid", "name"),
)

evaluations = Table(
    "evaluations",
    metadata,
    _key(),
    _deployment(),
    _text("revision"),
    _text("verdict"),
    _text("reason"),
    _text("message"),
    _text("identity"),
    _text("suite"),
    _text("suite_hash"),
    _text("scorer_version"),
    Column("threshold", Double, nullable=False),
    Column("items", BigInteger, nullable=False),
    Column("lost", BigInteger, nullable=False),
    Column("allowed", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("probes", BigInteger, nullable=False),
    Column("sweeps", BigInteger, nullable=False),
    Column("lost_at_batch_1", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    _text("decided_at"),
    Column("batch", BigInteger, nullable=False),
    _text("control"),
    _text("acknowledged"),
    _recorded(),
    _told_at(),
    UniqueConstraint(
        "deployment_uid",
        "revision",
        "suite_hash",
        "scorer_version",
        "threshold",
        "batch",
        "control",
        "acknowledged",
        "verdict",
        "lost",
        "decided_at",
    ),
    Index("ix_evaluations_decided_at", "decided_at"),
)

evaluation_strata = Table(
    "evaluation_strata",
    metadata,
    Column("evaluation_id", _ID, ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("items", BigInteger, nullable=False),
    Column("lost", BigInteger, nullable=False),
    Column("allowed", BigInteger, nullable=False),
)

evaluation_items = Table(
    "evaluation_items",
    metadata,
    Column("evaluation_id", _ID, ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True),
    Column("item", Text, primary_key=True),
    Column("correct", Boolean, nullable=False),
)
"""Items that the report names, which are those it lost; the others are the suite's (`suite_items`)."""

rollouts = Table(
    "rollouts",
    metadata,
    _key(),
    _deployment(),
    _text("revision"),
    _text("event"),
    Column("at", Double, nullable=False),
    _text("to"),
    _text("cause"),
    _text("text"),
    _recorded(),
    _told_at(),
    UniqueConstraint("deployment_uid", "revision", "event", "at"),
)

alarms = Table(
    "alarms",
    metadata,
    _key(),
    _deployment(),
    _text("revision"),
    _text("source"),
    _text("reason"),
    _text("since"),
    _text("before"),
    _text("now"),
    Column("lost", JSON, nullable=False),
    _text("text"),
    _recorded(),
    _told_at(),
    UniqueConstraint("deployment_uid", "revision", "source", "reason", "since"),
)
