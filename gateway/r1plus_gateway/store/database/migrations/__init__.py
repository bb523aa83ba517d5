"""Alembic's migrations of the tenant's data, run by `store.database.migration`."""
