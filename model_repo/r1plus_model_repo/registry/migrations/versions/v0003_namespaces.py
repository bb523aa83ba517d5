"""Of which namespace a deployment was, not by its name alone: one of that name may be another tenant's by now."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Of none it is known yet; the operator tells it again at its start, and within the hour."""
    with op.batch_alter_table("deployments") as table:
        table.add_column(sa.Column("namespace_uid", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    """Every fact stays; the namespaces are told again after the next upgrade."""
    with op.batch_alter_table("deployments") as table:
        table.drop_column("namespace_uid")
