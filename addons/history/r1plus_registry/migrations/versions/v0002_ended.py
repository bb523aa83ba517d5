"""When a deployment ended: from then on only the platform team sees its history. Also indexes for queries."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Treat all as existing; the operator's next list of live deployments marks the ended ones."""
    with op.batch_alter_table("deployments") as table:
        table.add_column(sa.Column("ended_at", sa.Double(), nullable=True))
    op.create_index("ix_deployments_namespace_name", "deployments", ["namespace", "name"])
    op.create_index("ix_evaluations_decided_at", "evaluations", ["decided_at"])


def downgrade() -> None:
    """Keep every fact; the operator reports ended deployments again after the next upgrade."""
    op.drop_index("ix_evaluations_decided_at", "evaluations")
    op.drop_index("ix_deployments_namespace_name", "deployments")
    with op.batch_alter_table("deployments") as table:
        table.drop_column("ended_at")
