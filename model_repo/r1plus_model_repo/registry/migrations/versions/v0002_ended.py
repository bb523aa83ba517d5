"""When a deployment ended: its history is the platform team's from then on. And the indexes that reading goes by."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing known has ended yet; the operator's next list of what lives says what has."""
    with op.batch_alter_table("deployments") as table:
        table.add_column(sa.Column("ended_at", sa.Double(), nullable=True))
    op.create_index("ix_deployments_namespace_name", "deployments", ["namespace", "name"])
    op.create_index("ix_evaluations_decided_at", "evaluations", ["decided_at"])


def downgrade() -> None:
    """Every fact stays; when a deployment ended is told again after the next upgrade."""
    op.drop_index("ix_evaluations_decided_at", "evaluations")
    op.drop_index("ix_deployments_namespace_name", "deployments")
    with op.batch_alter_table("deployments") as table:
        table.drop_column("ended_at")
