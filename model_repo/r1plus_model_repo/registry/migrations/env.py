"""Alembic's environment: the connection comes from `registry.migrating`, which has set its time-outs.

A developer who runs `alembic revision --autogenerate` gives the database by R1PLUS_REGISTRY_DSN.
"""

import os

from alembic import context
from sqlalchemy.engine import Connection

from r1plus_model_repo.registry.database import VARIABLE, Database
from r1plus_model_repo.registry.tables import metadata


def run(connection: Connection) -> None:
    """Migrate over this connection, a transaction per migration."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=True,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with Database(os.environ[VARIABLE]).engine.connect() as own:
        run(own)
