"""Alembic's migrations of the registry, run by `registry.migrating`."""
