"""When the operator last reported a fact: facts that it no longer reports are pruned first."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
TABLES = ("suites", "revisions", "evaluations", "rollouts", "alarms")


def upgrade() -> None:
    """Start with unknown times; the operator reports everything in the cluster within the hour."""
    for name in TABLES:
        with op.batch_alter_table(name) as table:
            table.add_column(sa.Column("told_at", sa.Double(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Keep every fact."""
    for name in TABLES:
        with op.batch_alter_table(name) as table:
            table.drop_column("told_at")
