"""When the operator told a fact last: what it tells no more is gone from the cluster, and may be pruned first."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
TABLES = ("suites", "revisions", "evaluations", "rollouts", "alarms")


def upgrade() -> None:
    """Of none it is known yet; the operator tells all that the cluster keeps within the hour."""
    for name in TABLES:
        with op.batch_alter_table(name) as table:
            table.add_column(sa.Column("told_at", sa.Double(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Every fact stays."""
    for name in TABLES:
        with op.batch_alter_table(name) as table:
            table.drop_column("told_at")
