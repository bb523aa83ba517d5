"""The tables after the newest migration. `migrations/` creates them, and a test compares the two.

Every fact has a unique constraint on its natural key (`r1plus_contract.history`), so recording is an insert that does
nothing if the fact exists. Times are seconds since the epoch or RFC 3339 text, as in the facts.
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
"""Names of constraints and indexes, so that later migrations can refer to them."""
metadata = MetaData(naming_convention=NAMING)
# SQLite only numbers rows automatically if the type is exactly INTEGER.
_ID = BigInteger().with_variant(Integer, "sqlite")


def _make_key_column() -> Column[int]:
    return Column("id", _ID, primary_key=True, autoincrement=True)


def _make_recorded_at_column() -> Column[float]:
    return Column("recorded_at", Double, nullable=False)


def _make_told_at_column() -> Column[float]:
    """Return the column with the time of the last report: the operator reports everything in the cluster every hour."""
    return Column("told_at", Double, nullable=False, server_default="0")


def _make_text_column(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _make_deployment_column() -> Column[str]:
    return Column("deployment_uid", Text, ForeignKey("deployments.uid", ondelete="CASCADE"), nullable=False)


deployments = Table(
    "deployments",
    metadata,
    Column("uid", Text, primary_key=True),
    _make_text_column("namespace"),
    _make_text_column("name"),
    _make_recorded_at_column(),
    Column("ended_at", Double),
    Column("namespace_uid", Text, nullable=False, server_default=""),
    Index("ix_deployments_namespace_name", "namespace", "name"),
)

engines = Table(
    "engines",
    metadata,
    _make_key_column(),
    _make_text_column("name"),
    _make_text_column("spec_digest"),
    _make_text_column("family"),
    _make_text_column("tier"),
    _make_text_column("version"),
    _make_text_column("precision"),
    _make_text_column("backend"),
    _make_text_column("suite"),
    Column("spec", JSON, nullable=False),
    _make_recorded_at_column(),
    UniqueConstraint("name", "spec_digest"),
)

provenance = Table(
    "provenance",
    metadata,
    _make_key_column(),
    Column("engine_id", _ID, ForeignKey("engines.id", ondelete="CASCADE"), nullable=False),
    _make_text_column("image"),
    _make_text_column("sha256"),
    _make_text_column("inherited_from"),
    _make_text_column("claimed_by"),
    _make_recorded_at_column(),
    UniqueConstraint("engine_id", "image", "sha256"),
)
"""Source of an engine's files and of its reference."""

suites = Table(
    "suites",
    metadata,
    _make_key_column(),
    _make_text_column("namespace"),
    _make_text_column("name"),
    _make_text_column("version"),
    _make_text_column("sha256"),
    _make_text_column("scorer_version"),
    _make_text_column("reference_engine"),
    _make_text_column("signer"),
    _make_recorded_at_column(),
    _make_told_at_column(),
    UniqueConstraint("namespace", "sha256"),
)

suite_items = Table(
    "suite_items",
    metadata,
    Column("suite_id", _ID, ForeignKey("suites.id", ondelete="CASCADE"), primary_key=True),
    Column("item", Text, primary_key=True),
    _make_text_column("stratum"),
)

revisions = Table(
    "revisions",
    metadata,
    _make_key_column(),
    _make_deployment_column(),
    _make_text_column("name"),
    Column("number", BigInteger, nullable=False),
    _make_text_column("engine"),
    _make_text_column("engine_digest"),
    Column("batch", BigInteger, nullable=False),
    Column("context", BigInteger, nullable=False),
    _make_text_column("identity_digest"),
    Column("identity", JSON, nullable=False),
    _make_text_column("monitor_image"),
    _make_recorded_at_column(),
    _make_told_at_column(),
    UniqueConstraint("deployment_uid", "name"),
)

evaluations = Table(
    "evaluations",
    metadata,
    _make_key_column(),
    _make_deployment_column(),
    _make_text_column("revision"),
    _make_text_column("verdict"),
    _make_text_column("reason"),
    _make_text_column("message"),
    _make_text_column("identity"),
    _make_text_column("suite"),
    _make_text_column("suite_hash"),
    _make_text_column("scorer_version"),
    Column("threshold", Double, nullable=False),
    Column("items", BigInteger, nullable=False),
    Column("lost", BigInteger, nullable=False),
    Column("allowed", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("probes", BigInteger, nullable=False),
    Column("sweeps", BigInteger, nullable=False),
    Column("lost_at_batch_1", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    _make_text_column("decided_at"),
    Column("batch", BigInteger, nullable=False),
    _make_text_column("control"),
    _make_text_column("acknowledged"),
    _make_recorded_at_column(),
    _make_told_at_column(),
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
"""Lost items that the report names; the other items are in `suite_items`."""

rollouts = Table(
    "rollouts",
    metadata,
    _make_key_column(),
    _make_deployment_column(),
    _make_text_column("revision"),
    _make_text_column("event"),
    Column("at", Double, nullable=False),
    _make_text_column("to"),
    _make_text_column("cause"),
    _make_text_column("text"),
    _make_recorded_at_column(),
    _make_told_at_column(),
    UniqueConstraint("deployment_uid", "revision", "event", "at"),
)

alarms = Table(
    "alarms",
    metadata,
    _make_key_column(),
    _make_deployment_column(),
    _make_text_column("revision"),
    _make_text_column("source"),
    _make_text_column("reason"),
    _make_text_column("since"),
    _make_text_column("before"),
    _make_text_column("now"),
    Column("lost", JSON, nullable=False),
    _make_text_column("text"),
    _make_recorded_at_column(),
    _make_told_at_column(),
    UniqueConstraint("deployment_uid", "revision", "source", "reason", "since"),
)
