"""Alembic's environment: the connection comes from `registry.migration`, which has set its time-outs.

For `alembic revision --autogenerate` a developer sets R1PLUS_REGISTRY_DSN.
"""

import os

from alembic import context
from sqlalchemy.engine import Connection

from r1plus_registry.database import VARIABLE, RegistryDatabase
from r1plus_registry.tables import metadata


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


shared_connection = context.config.attributes.get("connection")
if shared_connection is not None:
    run(shared_connection)
else:
    with RegistryDatabase(os.environ[VARIABLE]).engine.connect() as connection:
        run(connection)
