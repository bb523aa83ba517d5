"""Alembic's environment: the connection comes from `store.database.migration`, which has set its time-outs."""

from alembic import context
from sqlalchemy.engine import Connection

from r1plus_gateway.store.database.tables import metadata


def run(connection: Connection) -> None:
    """Migrate over this connection, with a transaction per migration."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=True,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
