"""The database: its file, schema, migrations, transactions."""
