"""The uid of a deployment's namespace: a namespace of the same name may belong to another tenant now."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Start with unknown uids; the operator reports them at its start, and within the hour."""
    with op.batch_alter_table("deployments") as table:
        table.add_column(sa.Column("namespace_uid", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    """Keep every fact; the operator reports the uids again after the next upgrade."""
    with op.batch_alter_table("deployments") as table:
        table.drop_column("namespace_uid")
